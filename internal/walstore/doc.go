// Package walstore keeps a member's state in a directory: who it is in a small
// file, its raft log in etcd's write-ahead log. Store implements
// raftlock.Storage; that interface says what is promised, this page how it
// lies on disk.
//
//	dir/                       one member's; mode 0700
//	├── LOCK                   empty; locked from Open to Close, never removed
//	├── member.json            the identity
//	├── member.json.tmp        the next identity, being written
//	├── wal/                   the log, in segments, present from Bootstrap or Join on
//	│   ├── 0000000000000003-00000000000000a7.wal      <sequence>-<first index>
//	│   ├── 0000000000000004-0000000000000113.wal
//	│   └── 0.tmp, 1.tmp       the next segment, allocated ahead
//	├── wal.new/, wal.new.tmp/ a log that Bootstrap or Join has not finished
//	└── snapshots/             made with the first one
//	    ├── 00000000000000f0-0000000000000002.snap         <index>-<term>
//	    └── 0000000000000120-0000000000000002.snap.7.tmp   one that is being written
//
// # Disk format, version 1
//
// Part of the disk format, do not change: a later version adds.
//
// member.json is one line, exactly as encoding/json writes it without spaces:
//
//	{"format":1,"crc32c":"<8 hex digits>","identity":{…}}\n
//
// The checksum (Castagnoli) is over the digits of "format" and then the bytes of
// the value of "identity", whose fields are those of raftlock.Identity. The file
// is read strictly: a wrapper that does not encode to the same bytes again is
// refused.
//
// A segment is a sequence of records, each padded to 8 bytes, then zeros that
// were allocated ahead (only the last segment has those):
//
//	length (8 bytes, little endian; the top byte is 0x80|padding when padded)
//	08 <type> 10 <crc> [1a <length> <payload>]  padding
//
// The checksum runs on through the payloads of all segments. It covers neither
// the type nor the framing, so no two types share a form of payload, and every
// byte of the rest has only one right value:
//
//	1 header    "raftlock" | version uint32 | cluster id uint64 | node id uint64, big endian
//	2 entry     08 <entry type> 10 <term> 18 <index> 22 <length> <data>   all four, always
//	3 state     08 <term> 10 <vote> 18 <commit>                           all three, always
//	4 checksum  none; carries the running checksum into a segment
//	5 snapshot  08 <index> 10 <term> [1a <length> <configuration>]
//
// Each segment begins with 4 and 1, every one but the first ever goes on with a
// state. The first one goes on with the snapshot 0 that etcd always writes, and
// then, on a member that was there from the beginning, the snapshot at index 1 and
// term 1 with the initial members as voters, and a state of term 1 that commits
// index 1. A member that joined later (its identity has "joined":true) has neither.
// Then follow entries, states and snapshots, and each is possible after those
// before it: an index is at most one above the last, terms do not fall, an entry's
// term is not above the state's, a commit is not above the last index and nothing
// committed is written again. Append refuses to write what Load would refuse to
// read.
//
// A snapshot's record names a file. If its index is committed by the states before
// it, it is an own one, and the log has had its entry. If not, it came from the
// leader, and the record behind it must be a state that commits it: then the log
// goes on at its index, and what was before is void, unless the log has the entry
// of that index and term. Without that state, the process died in between, and the
// record counts for nothing.
//
// What a snapshot file holds is none of this package's business; it has to be one
// that raftlock.CheckSnapshot accepts, with index, term and members as in the
// record. It got its name after it was synced, and its record after the name was;
// so a file without a record is no damage, and a record without its file is.
//
// # Letting go
//
// The two newest snapshots are kept (the first state counts as one, without a
// file), and the segments from the one that the older needs: the last whose name
// is not above its index, as all entries behind it are there or in later ones, or
// the one with its record, if that is earlier. Older segments are removed one by
// one from the first on, each durably before the next, so that no crash leaves a
// gap: the log is a run of segments that may begin anywhere. In the first one there
// is, the checksum of record 4 and the state are taken as they are; what ties them
// to the past are the snapshots.
//
// # Reading it back
//
// Load reads every segment with a reader of its own (scan.go) before etcd's
// code opens the log. etcd's reader takes many a flipped bit of a length for a
// torn write, and the repair then cuts off all acknowledged entries behind it;
// the type of a record is under no checksum at all. Ours knows what a crash can
// leave: a disk writes sectors of 512 bytes whole or not at all, and the file
// was zero before. So a record is torn if the file ends in it, or if a sector of
// it behind its first one is all zero, and nothing behind it shows that a later
// write was begun. What is torn was never acknowledged, and is cut off. Anything
// else is refused with raftlock.ErrCorrupt, or raftlock.ErrUnknownFormat if only
// a newer version can have written it, and nothing is changed.
//
// A snapshot's record is a write of its own and durable before the next one, as
// entries with their state are, so that a record behind it is such a later write.
//
// Then Load looks for the newest snapshot that the log goes on from and whose file
// is good, reading all of it. A damaged or missing one is logged as an error and
// passed over: the log has all entries since the older one. It is not removed
// before there is another snapshot. If none is left, Load refuses with the reason
// why the newest is of no use. A file of a newer format is refused, never passed
// over. The older snapshot's file is only read when it is needed.
//
// What unfinished calls have left is removed when all this is accepted: files that
// were being written, snapshots that no record names, segments that nobody needs.
//
// Two things look alike on disk and are decided for safety or for want of a
// witness. A record that is whole but for a length of zero at the very end of a
// sector is refused, though a power cut at that spot can leave it. And some
// damage cannot be seen: whole files put back from an older copy, the newest
// segment removed as a whole, or damage to the very last record if one of its
// own sectors is all zero. Such a member has lost its disk:
// have it replaced (Node.ReplaceMember), and start it with an empty directory.
//
// # Errors beside the log
//
// A failed write or fsync of the log is final, for what the file holds is unknown
// then. A snapshot that cannot be written aside, on a full disk for one, is not:
// its file is removed, nothing has relied on it, and the caller of Storage decides
// whether to try again. The log has room that was allocated ahead for as long as a
// segment lasts. Naming a snapshot and letting go are the log's business again, and
// final.
//
// # Two exceptions to a library's manners
//
// Both are the WAL package's, and why nothing but package embed wires this one
// in: it registers Prometheus collectors on the default registry at init, and
// its segment size is a variable of the process (wal.SegmentSizeBytes), which
// the first Open sets to 16 MiB, for a host that uses the same package too
// (UseSegmentSize sets another one, for tests). Otherwise a Store has no globals,
// and one goroutine (it allocates the next segment), which Close ends.
package walstore
