package lockservice

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// decoder is gRPC's decoder of a request, made to say what is wrong with one.
// gRPC's own answer to a message that cannot be decoded is an INTERNAL without
// more. The message is received as bytes, which is a message all of whose fields
// are unknown, and decoded here.
func decoder(receive func(any) error) func(any) error {
	return func(v any) error {
		message, ok := v.(proto.Message)
		if !ok {
			return receive(v)
		}
		raw := new(emptypb.Empty)
		if err := receive(raw); err != nil {
			return badMessage(err)
		}
		b := raw.ProtoReflect().GetUnknown()
		err := proto.Unmarshal(b, message)
		if err == nil {
			return nil
		}
		field, why := fault(b, message.ProtoReflect().Descriptor())
		if field == "" {
			field, why = "request", fmt.Sprintf("cannot be decoded: %v", err)
		}
		return badField(field, why)
	}
}

// badMessage is the refusal of what is no message at all. Whatever else gRPC has
// to say, that the caller is gone for instance, stays as it is.
func badMessage(err error) error {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return badField("request", fmt.Sprintf("is too large: %s", status.Convert(err).Message()))
	case codes.Internal:
		return badField("request", "is not a protobuf message")
	}
	return err
}

// fault finds the first field that keeps a message from being decoded, and says
// what is wrong with it. Within messages of others, such as a Duration, and the
// entries of maps, the outer name tells more.
func fault(b []byte, desc protoreflect.MessageDescriptor) (field, why string) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeField(b)
		if n < 0 {
			return "", ""
		}
		_, _, head := protowire.ConsumeTag(b)
		value := b[head:n]
		b = b[n:]
		fd := desc.Fields().ByNumber(number)
		if fd == nil || kind != protowire.BytesType {
			continue
		}
		content, _ := protowire.ConsumeBytes(value)
		if field, why := faultIn(fd, content); field != "" {
			return field, why
		}
	}
	return "", ""
}

func faultIn(fd protoreflect.FieldDescriptor, content []byte) (field, why string) {
	name := string(fd.Name())
	switch fd.Kind() {
	case protoreflect.StringKind:
		if !utf8.Valid(content) {
			return name, "is not UTF-8"
		}
	case protoreflect.MessageKind:
		inner, why := fault(content, fd.Message())
		switch {
		case inner != "" && !fd.IsMap() && fd.Message().ParentFile() == fd.ParentFile():
			return inner, why
		case inner != "":
			return name, why
		case !decodes(content, fd.Message()):
			return name, "cannot be decoded"
		}
	}
	return "", ""
}

// decodes reports whether the fields of a message can be told apart, and are of
// their kinds.
func decodes(b []byte, desc protoreflect.MessageDescriptor) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return desc != nil
}
