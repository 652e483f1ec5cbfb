package raftlock

import "errors"

// The errors of a member itself. What a lock call returns is in package client.
var (
	// ErrClosed is the cause in the error of a call that was pending when the
	// member was closed, or came later. The call may go to another member; what
	// had been proposed is unknown (client.ErrOutcomeUnknown is in the error then).
	ErrClosed = errors.New("raftlock: member is closed")

	// ErrDiskLost is what a member ends with (Done, Err) when the others know
	// its name with another data directory: it has lost the votes it gave and
	// must not vote again. Nothing but a change of the members makes another
	// start with the same directory succeed. Put the old directory back, or call
	// Node.ReplaceMember with its name at a member that runs (raftlock member
	// replace NAME), and start it again with an empty one. The only member of a cluster
	// ends with it too when a larger one of the same name knows its name with another
	// data directory: it has founded again, alone, what has grown since.
	ErrDiskLost = errors.New("raftlock: data directory is not the one this cluster knows")

	// ErrRemoved is what a member ends with (Done, Err; Open returns it too) when
	// it belongs to the cluster no more: it was removed, or replaced, by a call of
	// RemoveMember or ReplaceMember, perhaps while it was away. Its data directory
	// is of no use any more. To have a member of that name again, start it with an
	// empty one, after AddMember where it was removed.
	ErrRemoved = errors.New("raftlock: member was removed from the cluster")

	// ErrWrongCluster is in the error of Open when the data directory belongs
	// to another member or cluster than Config says, or was made with other
	// members; the text names both. Nothing was changed; mend the configuration.
	ErrWrongCluster = errors.New("raftlock: configuration does not fit the cluster")

	// ErrUnknownFormat is what a member ends with when its log holds something
	// that a newer build wrote and this one cannot read. Nothing of it was
	// applied, for the replicas would diverge. Run the newer build.
	ErrUnknownFormat = errors.New("raftlock: written by a newer version")
)
