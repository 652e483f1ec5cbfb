package peerwire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codec makes a frame a gRPC message, byte for byte. It is given to each
// server and each call, never registered: the registry is the process's.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// codecName is part of the content-type: part of the protocol.
const codecName = "raftlock"

func (codec) Name() string { return codecName }

// Marshal does not copy: the frame belongs to the stream since Send, and the
// garbage collector takes it when gRPC has written it.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("peerwire: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*frame)}, nil
}

// Unmarshal copies once, out of gRPC's pooled buffers, which it takes back on
// return, into a slice of the exact size, which the receiver keeps.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	frame, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("peerwire: cannot receive into a %T", v)
	}
	*frame = data.Materialize()
	return nil
}
