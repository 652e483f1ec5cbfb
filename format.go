package raftlock

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// formats are what a replica knows of the others' builds.
//
// Members are upgraded one after the other, and every member must be able to
// read every entry. So each says in its hello up to where it reads, and a leader
// writes the newest format that all members read: the least of what they have
// announced. One that this member has not met since its own start may read the
// oldest only; what was announced is not kept on disk, where it could only be
// out of date. A member that went back to an older build is met again, and the
// leader writes the older format from then on; what was written before, it
// cannot read, and it ends with ErrUnknownFormat before it applies it.
type formats struct {
	own       format
	announced map[uint64]format // by member
	writes    format            // what all present members read
}

func newFormats(own format) formats {
	return formats{own: own, announced: map[uint64]format{}, writes: oldestFormat}
}

// peerReads notes what a member announced when it was met.
func (r *replica) peerReads(member uint64, newest format) {
	r.formats.announced[member] = newest
	r.agreeOnFormat()
}

// agreeOnFormat finds out what may be written. It comes with every meeting, and
// with every tick, for members come and go.
func (r *replica) agreeOnFormat() {
	all := []format{r.formats.own}
	r.raw.WithProgress(func(id uint64, _ raft.ProgressType, _ tracker.Progress) {
		if id != r.self {
			all = append(all, max(r.formats.announced[id], oldestFormat))
		}
	})
	if least := slices.Min(all); least != r.formats.writes {
		r.logger.Info("format of log entries", "writes", least, "could", r.formats.own)
		r.formats.writes = least
	}
}
