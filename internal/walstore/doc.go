// Package walstore keeps a member's state in a directory: who it is in a small
// file, its raft log in etcd's write-ahead log. Store implements
// raftlock.Storage; that interface says what is promised, this page how it
// lies on disk.
//
//	dir/                       one member's; mode 0700
//	├── LOCK                   empty; locked from Open to Close, never removed
//	├── member.json            the identity
//	├── member.json.tmp        the next identity, being written
//	├── wal/                   the log, in segments, present from Bootstrap on
//	│   ├── 0000000000000000-0000000000000000.wal      <sequence>-<first index>
//	│   ├── 0000000000000001-00000000000000a7.wal
//	│   └── 0.tmp, 1.tmp       the next segment, allocated ahead
//	└── wal.new/, wal.new.tmp/ a log that Bootstrap has not finished
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
// Each segment begins with 4 and 1. The first one goes on with the snapshot 0
// that etcd always writes, the snapshot at index 1 and term 1 with the initial
// members as voters, and a state of term 1 that commits index 1. Then follow
// entries and states, and each is possible after those before it: an index is
// at most one above the last, terms do not fall, an entry's term is not above
// the state's, a commit is not above the last index and nothing committed is
// written again. Append refuses to write what Load would refuse to read.
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
// Two things look alike on disk and are decided for safety or for want of a
// witness. A record that is whole but for a length of zero at the very end of a
// sector is refused, though a power cut at that spot can leave it. And some
// damage cannot be seen: whole files put back from an older copy, the newest
// segment removed as a whole, or damage to the very last record if one of its
// own sectors is all zero. Such a member has lost its disk: replace it.
//
// # Two exceptions to a library's manners
//
// Both are the WAL package's, and why nothing but package embed wires this one
// in: it registers Prometheus collectors on the default registry at init, and
// its segment size is a variable of the process (wal.SegmentSizeBytes), which
// the first Open sets to 16 MiB, for a host that uses the same package too.
// Otherwise a Store has no globals, and one goroutine (it allocates the next
// segment), which Close ends.
package walstore
