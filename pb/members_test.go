package pb

import (
	"strings"
	"testing"
)

// The service for operators, as it was published.
func TestMembersKeepTheContract(t *testing.T) {
	want := map[string]string{
		"Member":                     "1 name:string, 2 peer_address:string, 3 client_address:string, 4 is_leader:bool, 5 is_voter:bool",
		"ListMembersRequest":         "",
		"ListMembersResponse":        "1 members:repeated Member",
		"AddMemberRequest":           "1 name:string, 2 peer_address:string",
		"AddMemberResponse":          "",
		"RemoveMemberRequest":        "1 name:string",
		"RemoveMemberResponse":       "",
		"ReplaceMemberRequest":       "1 name:string",
		"ReplaceMemberResponse":      "",
		"TransferLeadershipRequest":  "1 name:string",
		"TransferLeadershipResponse": "",
	}
	got := map[string]string{}
	for _, m := range messagesIn(File_pb_members_proto.Messages()) {
		got[name(m)] = strings.Join(fields(m), ", ")
	}
	compare(t, "message", want, got)

	if n := File_pb_members_proto.Services().Len(); n != 1 {
		t.Fatalf("%d services, want Members alone", n)
	}
	service := File_pb_members_proto.Services().Get(0)
	if service.FullName() != "raftlock.Members" {
		t.Errorf("the service is %s", service.FullName())
	}
	wantMethods := map[string]string{
		"List":     "(ListMembersRequest) ListMembersResponse",
		"Add":      "(AddMemberRequest) AddMemberResponse",
		"Remove":   "(RemoveMemberRequest) RemoveMemberResponse",
		"Replace":  "(ReplaceMemberRequest) ReplaceMemberResponse",
		"Transfer": "(TransferLeadershipRequest) TransferLeadershipResponse",
	}
	gotMethods := map[string]string{}
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		gotMethods[string(m.Name())] = signature(m)
	}
	compare(t, "method", wantMethods, gotMethods)
}
