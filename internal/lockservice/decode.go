package lockservice

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/known/emptypb"
)

// maxMessage is how large a request may be.
const maxMessage = 4 << 20

// decoder is gRPC's decoder of a request, made to say what is wrong with one.
// gRPC itself answers a message that cannot be decoded with an INTERNAL, without
// more, and before a handler could say anything. So it is handed a message that
// takes whatever comes, and the bytes are decoded here.
func decoder(receive func(any) error) func(any) error {
	return func(v any) error {
		message, ok := v.(proto.Message)
		if !ok {
			return receive(v)
		}
		got := new(envelope)
		if err := receive(got); err != nil {
			return err
		}
		if len(got.b) > maxMessage {
			return badField("request", fmt.Sprintf("has %d bytes, at most %d are allowed", len(got.b), maxMessage))
		}
		err := proto.Unmarshal(got.b, message)
		if err == nil {
			return nil
		}
		field, why := fault(got.b, message.ProtoReflect().Descriptor())
		if field == "" {
			field, why = "request", "is not a protobuf message"
		}
		return badField(field, why)
	}
}

// envelope is a message that is its bytes, whatever they are.
type envelope struct{ b []byte }

// Reset implements what package proto calls before it decodes.
func (e *envelope) Reset() { e.b = nil }

// ProtoReflect implements proto.Message.
func (e *envelope) ProtoReflect() protoreflect.Message {
	return envelopeMessage{(*emptypb.Empty)(nil).ProtoReflect(), e}
}

type envelopeMessage struct {
	protoreflect.Message
	envelope *envelope
}

func (m envelopeMessage) Interface() protoreflect.ProtoMessage { return m.envelope }

func (m envelopeMessage) IsValid() bool { return true }

func (m envelopeMessage) ProtoMethods() *protoiface.Methods {
	return &protoiface.Methods{
		Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
			m.envelope.b = bytes.Clone(in.Buf) // which gRPC uses again
			return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, nil
		},
	}
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
		case !decodes(content):
			return name, "cannot be decoded"
		}
	}
	return "", ""
}

// decodes reports whether the fields of a message can be told apart.
func decodes(b []byte) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
