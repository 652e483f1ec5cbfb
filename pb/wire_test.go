package pb

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The contract, typed by hand from its document: number, name, type. It is
// never generated, so that no run of a generator can move it.
var fieldsOf = map[string]string{
	"AcquireRequest": `1 lock_id:string, 2 client_id:string, 3 ttl:Duration, 4 wait:bool, 5 wait_timeout:Duration, 6 priority:int32,
		7 metadata:map<string, string>, 8 request_id:string, 100 attempt:int32`,
	"AcquireResponse": `1 acquired:bool, 2 lock:Lock, 3 backoff_advice:BackoffAdvice, 4 error:ErrorDetail, 5 queue_position:int32,
		6 estimated_wait_duration:Duration`,
	"ReleaseRequest":        `1 lock_id:string, 2 client_id:string, 3 version:int64`,
	"ReleaseResponse":       `1 released:bool, 2 error:ErrorDetail, 3 waiter_promoted:bool`,
	"RenewRequest":          `1 lock_id:string, 2 client_id:string, 3 version:int64, 4 new_ttl:Duration`,
	"RenewResponse":         `1 renewed:bool, 2 lock:Lock, 3 error:ErrorDetail`,
	"GetLockInfoRequest":    `1 lock_id:string, 2 include_waiters:bool`,
	"GetLockInfoResponse":   `1 lock_info:LockInfo, 2 error:ErrorDetail`,
	"GetLocksRequest":       `1 filter:LockFilter, 2 limit:int32, 3 offset:int32, 4 include_waiters:bool, 100 start_after:string`,
	"GetLocksResponse":      `1 locks:repeated LockInfo, 2 total_matching_filter:int32, 3 has_more:bool`,
	"EnqueueWaiterRequest":  `1 lock_id:string, 2 client_id:string, 3 timeout:Duration, 4 priority:int32, 5 version:int64`,
	"EnqueueWaiterResponse": `1 enqueued:bool, 2 position:int32, 3 estimated_wait_duration:Duration, 4 error:ErrorDetail`,
	"CancelWaitRequest":     `1 lock_id:string, 2 client_id:string, 3 version:int64, 100 request_id:string`,
	"CancelWaitResponse":    `1 cancelled:bool, 2 error:ErrorDetail`,
	"BackoffAdviceRequest":  `1 lock_id:string`,
	"BackoffAdviceResponse": `1 advice:BackoffAdvice`,
	"GetStatusRequest":      `1 include_replication_details:bool`,
	"GetStatusResponse":     `1 raft_status:RaftStatus, 2 lock_stats:LockManagerStats, 3 health:HealthStatus`,
	"HealthRequest":         `1 service_name:string`,
	"HealthResponse":        `1 status:HealthStatus.ServingStatus, 2 message:string, 3 health_info:HealthStatus`,
	"LockFilter": `1 lock_id_pattern:string, 2 owner_id_pattern:string, 3 only_held:bool, 4 only_contested:bool, 5 expires_before:Timestamp,
		6 expires_after:Timestamp, 7 metadata_filter:map<string, string>`,
	"Lock": `1 lock_id:string, 2 owner_id:string, 3 version:int64, 4 acquired_at:Timestamp, 5 expires_at:Timestamp,
		6 metadata:map<string, string>, 100 remaining:Duration`,
	"LockInfo": `1 lock_id:string, 2 owner_id:string, 3 version:int64, 4 acquired_at:Timestamp, 5 expires_at:Timestamp, 6 waiter_count:int32,
		7 waiters_info:repeated WaiterInfo, 8 metadata:map<string, string>, 9 last_modified_at:Timestamp, 100 remaining:Duration`,
	"WaiterInfo":    `1 client_id:string, 2 enqueued_at:Timestamp, 3 timeout_at:Timestamp, 4 priority:int32, 5 position:int32`,
	"BackoffAdvice": `1 initial_backoff:Duration, 2 max_backoff:Duration, 3 multiplier:double, 4 jitter_factor:double`,
	"RaftStatus": `1 node_id:string, 2 role:string, 3 term:uint64, 4 leader_id:string, 5 last_log_index:uint64, 6 last_log_term:uint64,
		7 commit_index:uint64, 8 last_applied:uint64, 9 snapshot_index:uint64, 10 snapshot_term:uint64, 11 replication:map<string, PeerState>`,
	"PeerState": `1 next_index:uint64, 2 match_index:uint64, 3 is_active:bool, 4 last_active_at:Timestamp, 5 snapshot_in_progress:bool,
		6 replication_lag:uint64`,
	"LockManagerStats": `1 active_locks_count:int32, 2 total_waiters_count:int32, 3 contested_locks_count:int32, 4 average_hold_duration:Duration,
		5 acquisition_rate_per_second:double, 6 release_rate_per_second:double, 7 expired_locks_last_period:int32`,
	"HealthStatus": `1 status:HealthStatus.ServingStatus, 2 message:string, 3 is_raft_leader:bool, 4 raft_leader_address:string, 5 raft_term:uint64,
		6 raft_last_applied:uint64, 7 current_active_locks:int32, 8 current_total_waiters:int32, 9 uptime:Duration, 10 last_health_check_at:Timestamp`,
	"ErrorDetail": `1 code:ErrorCode, 2 message:string, 3 details:map<string, string>`,
}

var valuesOf = map[string]string{
	"ErrorCode": `ERROR_CODE_UNSPECIFIED = 0, OK = 1, LOCK_HELD = 101, LOCK_NOT_HELD = 102, NOT_LOCK_OWNER = 103, VERSION_MISMATCH = 104,
		LOCK_NOT_FOUND = 105, INVALID_TTL = 106, WAIT_QUEUE_FULL = 107, NOT_WAITING = 108, NOT_LEADER = 201, NO_LEADER = 202,
		REPLICATION_FAILURE = 203, TIMEOUT = 301, RATE_LIMITED = 302, UNAVAILABLE = 303, INTERNAL_ERROR = 304, INVALID_ARGUMENT = 305,
		PERMISSION_DENIED = 306`,
	"HealthStatus.ServingStatus": `UNKNOWN = 0, SERVING = 1, NOT_SERVING = 2`,
}

// All methods are unary, from XRequest to XResponse unless typed otherwise.
var methods = []string{
	"Acquire", "Release", "Renew", "GetLockInfo", "GetLocks", "EnqueueWaiter", "CancelWait", "GetStatus", "Health",
	"GetBackoffAdvice(BackoffAdviceRequest) BackoffAdviceResponse",
}

func TestMessagesKeepTheContract(t *testing.T) {
	want := map[string]string{}
	for name, fields := range fieldsOf {
		want[name] = strings.Join(strings.Fields(fields), " ")
	}
	got := map[string]string{}
	for _, m := range allMessages() {
		got[name(m)] = strings.Join(fields(m), ", ")
	}
	compare(t, "message", want, got)
}

func TestEnumsKeepTheContract(t *testing.T) {
	want := map[string]string{}
	for name, values := range valuesOf {
		want[name] = strings.Join(strings.Fields(values), " ")
	}
	got := map[string]string{}
	for _, e := range allEnums() {
		got[name(e)] = strings.Join(values(e), ", ")
	}
	compare(t, "enum", want, got)
}

func TestServiceKeepsTheContract(t *testing.T) {
	if n := File_pb_raftlock_proto.Services().Len(); n != 1 {
		t.Fatalf("%d services, want RaftLock alone", n)
	}
	if got := File_pb_raftlock_proto.Services().Get(0).FullName(); got != "raftlock.RaftLock" {
		t.Fatalf("the service is %s", got)
	}
	want := map[string]string{}
	for _, m := range methods {
		verb, signature, typed := strings.Cut(m, "(")
		if !typed {
			signature = verb + "Request) " + verb + "Response"
		}
		want[verb] = "(" + signature
	}
	got := map[string]string{}
	for _, m := range allMethods() {
		got[string(m.Name())] = signature(m)
	}
	compare(t, "method", want, got)
}

func TestFileIsProto3(t *testing.T) {
	if got := File_pb_raftlock_proto.Syntax(); got != protoreflect.Proto3 {
		t.Errorf("syntax %s, want proto3", got)
	}
	if got := File_pb_raftlock_proto.Package(); got != "raftlock" {
		t.Errorf("package %s, want raftlock", got)
	}
}

// The same once more as text, for people to read and for diffs to show: run
// with -rewrite after adding a field, then look at what changed.
func TestWireText(t *testing.T) {
	datadriven.RunTest(t, "testdata/wire.txt", func(t *testing.T, d *datadriven.TestData) string {
		var b strings.Builder
		switch d.Cmd {
		case "methods":
			for _, m := range allMethods() {
				fmt.Fprintf(&b, "/%s/%s%s\n", m.Parent().FullName(), m.Name(), signature(m))
			}
		case "enums":
			for _, e := range allEnums() {
				fmt.Fprintf(&b, "%s\n  %s\n", e.FullName(), strings.Join(values(e), "\n  "))
			}
		case "messages":
			for _, m := range allMessages() {
				fmt.Fprintf(&b, "%s\n  %s\n", m.FullName(), strings.Join(fields(m), "\n  "))
			}
		default:
			d.Fatalf(t, "unknown command %s", d.Cmd)
		}
		return b.String()
	})
}

// compare holds both directions: nothing is missing, nothing is there that was
// not agreed on.
func compare(t *testing.T, kind string, want, got map[string]string) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%s %s is gone", kind, name)
		} else if g != w {
			t.Errorf("%s %s\n got %s\nwant %s", kind, name, g, w)
		}
	}
	for name, g := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s %s is not in the contract: %s", kind, name, g)
		}
	}
}

func allMessages() []protoreflect.MessageDescriptor {
	return messagesIn(File_pb_raftlock_proto.Messages())
}

// messagesIn leaves out the entries of maps, which the map's field describes.
func messagesIn(list protoreflect.MessageDescriptors) []protoreflect.MessageDescriptor {
	var out []protoreflect.MessageDescriptor
	for i := range list.Len() {
		if m := list.Get(i); !m.IsMapEntry() {
			out = append(append(out, m), messagesIn(m.Messages())...)
		}
	}
	return out
}

func allEnums() []protoreflect.EnumDescriptor {
	out := enumsIn(File_pb_raftlock_proto.Enums())
	for _, m := range allMessages() {
		out = append(out, enumsIn(m.Enums())...)
	}
	return out
}

func enumsIn(list protoreflect.EnumDescriptors) []protoreflect.EnumDescriptor {
	var out []protoreflect.EnumDescriptor
	for i := range list.Len() {
		out = append(out, list.Get(i))
	}
	return out
}

func allMethods() []protoreflect.MethodDescriptor {
	list := File_pb_raftlock_proto.Services().Get(0).Methods()
	var out []protoreflect.MethodDescriptor
	for i := range list.Len() {
		out = append(out, list.Get(i))
	}
	return out
}

// fields lists the fields of a message in the order of their numbers.
func fields(m protoreflect.MessageDescriptor) []string {
	var out []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		text := strconv.Itoa(int(f.Number())) + " " + string(f.Name()) + ":" + fieldType(f)
		if f.ContainingOneof() != nil {
			text += " in oneof " + string(f.ContainingOneof().Name())
		}
		out = append(out, text)
	}
	return out
}

func values(e protoreflect.EnumDescriptor) []string {
	var out []string
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		out = append(out, fmt.Sprintf("%s = %d", v.Name(), v.Number()))
	}
	return out
}

func signature(m protoreflect.MethodDescriptor) string {
	in, out := name(m.Input()), name(m.Output())
	if m.IsStreamingClient() {
		in = "stream " + in
	}
	if m.IsStreamingServer() {
		out = "stream " + out
	}
	return "(" + in + ") " + out
}

func fieldType(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map<" + fieldType(f.MapKey()) + ", " + fieldType(f.MapValue()) + ">"
	case f.IsList():
		return "repeated " + elementType(f)
	default:
		return elementType(f)
	}
}

func elementType(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return name(f.Message())
	case protoreflect.EnumKind:
		return name(f.Enum())
	default:
		return f.Kind().String()
	}
}

// name is the name of a declaration as the contract writes it: without the
// package, for ours and for the two well-known types.
func name(d protoreflect.Descriptor) string {
	for _, pkg := range []string{"raftlock.", "google.protobuf."} {
		if short, ok := strings.CutPrefix(string(d.FullName()), pkg); ok {
			return short
		}
	}
	return string(d.FullName())
}
