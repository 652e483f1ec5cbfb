package lockservice_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// raw sends bytes as they are.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// send calls a method with bytes.
func send(ctx context.Context, d *desk, method string, b []byte) (header metadata.MD, err error) {
	return sendTo(ctx, d, pb.RaftLock_ServiceDesc.ServiceName, method, b)
}

func sendTo(ctx context.Context, d *desk, service, method string, b []byte) (header metadata.MD, err error) {
	var answer []byte
	err = d.conn.Invoke(ctx, "/"+service+"/"+method, b, &answer, grpc.ForceCodecV2(raw{}), grpc.Header(&header))
	return header, err
}

func field(number protowire.Number, content string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

// What cannot be decoded is refused with the name of the field.
func TestMessagesThatCannotBeDecoded(t *testing.T) {
	c := testcluster.New(t, 1)
	d := openDesk(t, at(c, 0))
	for name, test := range map[string]struct {
		method string
		b      []byte
		field  string
	}{
		"an id":              {"Acquire", field(1, "\xff"), "lock_id"},
		"the second id":      {"Release", append(field(1, "a"), field(2, "\xc3\x28")...), "client_id"},
		"a key of metadata":  {"Acquire", field(7, string(field(1, "\xff"))), "metadata"},
		"a metadata's value": {"Acquire", field(7, string(append(field(1, "k"), field(2, "\xff")...))), "metadata"},
		"metadata":           {"Acquire", field(7, "\x0a\x05"), "metadata"},
		"a duration":         {"Acquire", field(3, "\x08"), "ttl"},
		"in the filter":      {"GetLocks", field(1, string(field(2, "\xff"))), "owner_id_pattern"},
		"the filter":         {"GetLocks", field(1, "\x0a"), "filter"},
		"a filter's time":    {"GetLocks", field(1, string(field(5, "\x08"))), "expires_before"},
		"a cut message":      {"Acquire", []byte{0x0a, 0x05, 'a'}, "request"},
		"no message":         {"Acquire", []byte{0xff}, "request"},
	} {
		header, err := send(within(t), d, test.method, test.b)
		signed(t, c, header)
		got := detail(t, err)
		if status.Code(err) != codes.InvalidArgument || got.GetCode() != pb.ErrorCode_INVALID_ARGUMENT ||
			got.GetDetails()["field"] != test.field || got.GetDetails()["outcome"] != "not_proposed" {
			t.Errorf("%s: %v, want the field %s", name, err, test.field)
		}
		if !strings.Contains(got.GetMessage(), test.field) {
			t.Errorf("%s: the message %q does not name %s", name, got.GetMessage(), test.field)
		}
	}
	// What is not known is not refused: it may be of a newer client.
	b := append(append(field(1, "a"), field(2, "one")...), field(199, "\xff")...)
	if _, err := send(within(t), d, "Acquire", b); err != nil {
		t.Errorf("a field that is not known: %v", err)
	}
}

// Durations and times that are none are refused by name; large ones are bounds'
// affair.
func TestTimesThatAreNone(t *testing.T) {
	c := testcluster.New(t, 1)
	d := openDesk(t, at(c, 0))
	none, huge := &durationpb.Duration{Seconds: 1, Nanos: -1}, &durationpb.Duration{Seconds: 315_576_000_000}
	past := &timestamppb.Timestamp{Seconds: math.MinInt64}
	refused := func(name string, err error) {
		t.Helper()
		if got := detail(t, err); status.Code(err) != codes.InvalidArgument || got.GetDetails()["field"] != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one", Ttl: none})
	refused("ttl", err)
	_, _, err = call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one", Wait: true, WaitTimeout: none})
	refused("wait_timeout", err)
	_, _, err = call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one", Wait: true, WaitTimeout: huge})
	refused("wait_timeout", err)
	_, _, err = call(t, d.rpc.Renew, &pb.RenewRequest{LockId: "a", ClientId: "one", NewTtl: none})
	refused("new_ttl", err)
	_, _, err = call(t, d.rpc.EnqueueWaiter, &pb.EnqueueWaiterRequest{LockId: "a", ClientId: "one", Timeout: none})
	refused("timeout", err)
	_, _, err = call(t, d.rpc.GetLocks, &pb.GetLocksRequest{Filter: &pb.LockFilter{ExpiresBefore: past}})
	refused("expires_before", err)
	_, _, err = call(t, d.rpc.GetLocks, &pb.GetLocksRequest{Filter: &pb.LockFilter{ExpiresAfter: past}})
	refused("expires_after", err)

	answer := must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one", Ttl: huge})
	if answer.GetError().GetCode() != pb.ErrorCode_INVALID_TTL {
		t.Errorf("a TTL of ten thousand years: %v", answer)
	}
	answer = must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one", WaitTimeout: none})
	if !answer.GetAcquired() {
		t.Errorf("a time-out that means nothing: %v", answer)
	}
}

func TestMessageLimit(t *testing.T) {
	c := testcluster.New(t, 1)
	d := openDesk(t, at(c, 0))
	for size, refused := range map[int]string{4<<20 - 100: "metadata", 4 << 20: "request"} {
		req := &pb.AcquireRequest{LockId: "a", ClientId: "one", Metadata: map[string]string{"k": strings.Repeat("v", size)}}
		_, header, err := call(t, d.rpc.Acquire, req)
		signed(t, c, header)
		got := detail(t, err)
		if got.GetCode() != pb.ErrorCode_INVALID_ARGUMENT || got.GetDetails()["field"] != refused {
			t.Errorf("%d bytes: %v", proto.Size(req), err)
		}
	}
}

// A listing without a limit gets a page, not all.
func TestListingsArePages(t *testing.T) {
	c := testcluster.New(t, 1)
	d := openDesk(t, at(c, 0))
	const locks = 1_003
	for i := range locks {
		must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: fmt.Sprintf("lock-%04d", i), ClientId: "one"})
	}
	page := must(t, d.rpc.GetLocks, &pb.GetLocksRequest{})
	if len(page.GetLocks()) != 1_000 || !page.GetHasMore() || page.GetTotalMatchingFilter() != locks {
		t.Errorf("the first page has %d of %d locks, more: %v", len(page.GetLocks()), page.GetTotalMatchingFilter(), page.GetHasMore())
	}
	page = must(t, d.rpc.GetLocks, &pb.GetLocksRequest{StartAfter: "lock-0999"})
	if len(page.GetLocks()) != 3 || page.GetHasMore() {
		t.Errorf("the second page has %d locks, more: %v", len(page.GetLocks()), page.GetHasMore())
	}
}

// FuzzService sends bytes to every method: each is answered, and nothing stops.
func FuzzService(f *testing.F) {
	c := testcluster.New(f, 1)
	cfg := at(c, 0)
	cfg.Client, cfg.Members = c.Node(0).Client(), &register{} // nothing that is recorded: it would grow
	d := openDesk(f, cfg)
	for _, m := range []proto.Message{
		&pb.AcquireRequest{LockId: "a", ClientId: "one", Ttl: durationpb.New(1 << 40), Metadata: map[string]string{"k": "v"}, Attempt: -1},
		&pb.ReleaseRequest{LockId: "a", ClientId: "one", Version: math.MinInt64},
		&pb.RenewRequest{LockId: "a", ClientId: "one", NewTtl: &durationpb.Duration{Seconds: math.MaxInt64, Nanos: -1}},
		&pb.GetLocksRequest{Filter: &pb.LockFilter{LockIdPattern: "*?*", ExpiresAfter: &timestamppb.Timestamp{Nanos: -1}}, Limit: -1},
		&pb.EnqueueWaiterRequest{LockId: "a", ClientId: "two", Priority: math.MinInt32, Timeout: durationpb.New(-1)},
		&pb.CancelWaitRequest{LockId: "a", ClientId: "two", RequestId: "r"},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add(field(1, "\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range pb.RaftLock_ServiceDesc.Methods {
			ask := b
			if m.MethodName == "Acquire" { // a wait would not end: the last value of a field counts
				ask = protowire.AppendVarint(protowire.AppendTag(append([]byte(nil), b...), 4, protowire.VarintType), 0)
			}
			header, err := send(within(t), d, m.MethodName, ask)
			if len(header.Get("raftlock-cluster")) != 1 {
				t.Errorf("%s: no header with %v", m.MethodName, err)
			}
			if code := status.Code(err); err != nil && (code == codes.Internal || code == codes.Unknown) {
				t.Errorf("%s: %v", m.MethodName, err)
			}
		}
		for _, m := range pb.Members_ServiceDesc.Methods {
			_, err := sendTo(within(t), d, pb.Members_ServiceDesc.ServiceName, m.MethodName, b)
			if code := status.Code(err); code == codes.Internal || code == codes.Unknown || code == codes.Unimplemented {
				t.Errorf("%s: %v", m.MethodName, err)
			}
		}
		must(t, d.rpc.GetStatus, &pb.GetStatusRequest{}) // it serves
	})
}
