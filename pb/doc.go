// Package pb is what callers of a raftlock cluster say and hear: the gRPC
// service raftlock.RaftLock, its messages, and the error codes.
//
// raftlock.proto is the contract. Programs that are already deployed speak it,
// so that nothing in it is ever renumbered, renamed, retyped or given another
// meaning; what is added gets a field number from 100 up. The tests hold every
// number, and CI holds the generated files to the contract. members.proto has the
// service raftlock.Members, for operators, by the same rules.
//
// Most programs should use package client, which speaks this protocol and adds
// retries, the way to the leader and a lock's local end. From here they need
// the error codes only:
//
//	if res.Error != nil && res.Error.Code == pb.ErrorCode_LOCK_HELD {
//		// somebody else has it
//	}
//
// The package refuses everything else: it has no behaviour of its own, and
// nothing in it is written by hand but this comment. Run `make gen` after a
// change of either file.
package pb
