package supervise

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// process is one line of the system's table.
type process struct {
	pid, parent, group, session int
	state                       byte
}

// ended reports whether it only waits for its parent to take note.
func (p process) ended() bool { return p.state == 'Z' || p.state == 'X' }

// processes reads the table. It is not of one moment: what is born while it is
// read may be missing, so whoever must not miss any reads again.
func processes() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	table := make(map[int]process, len(entries))
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
			if err != nil {
				continue // it has ended meanwhile
			}
			if p, ok := parseStat(pid, stat); ok {
				table[pid] = p
			}
		}
	}
	return table, nil
}

// parseStat reads pid (name) state parent group session …; a name may have
// anything in it.
func parseStat(pid int, stat []byte) (p process, ok bool) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 {
		return process{}, false
	}
	p = process{pid: pid, state: fields[0][0]}
	for i, to := range []*int{&p.parent, &p.group, &p.session} {
		n, err := strconv.Atoi(string(fields[i+1]))
		if err != nil {
			return process{}, false
		}
		*to = n
	}
	return p, true
}

// family is who belongs to a command.
type family struct {
	group int // the command's own, and its first process
	// adopter is the process that the command's orphans fall to, the
	// supervisor; 0 when there is none. Of its children, others are none of
	// ours.
	adopter int
	others  []int
}

// living lists who of the family runs, in no order. An adopter that is dead
// adopts nobody, and its number may be another's by now: only its child or
// itself can ask.
func (f family) living(table map[int]process) (list []process) {
	self := os.Getpid()
	children := map[int][]int{}
	var next []int
	adopts := f.adopter != 0 && (f.adopter == self || table[self].parent == f.adopter)
	for _, p := range table {
		children[p.parent] = append(children[p.parent], p.pid)
		adopted := adopts && p.parent == f.adopter && !slices.Contains(f.others, p.pid)
		if p.group == f.group || p.pid == f.group || adopted {
			next = append(next, p.pid)
		}
	}
	seen := map[int]bool{self: true, f.adopter: true}
	for len(next) > 0 {
		pid := next[len(next)-1]
		next = next[:len(next)-1]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		if p := table[pid]; !p.ended() {
			list = append(list, p)
		}
		next = append(next, children[pid]...)
	}
	return list
}

// terminate asks the family to end: SIGTERM, and SIGCONT so that who is stopped
// hears it. daemons says whether those with sessions of their own are meant.
func (f family) terminate(daemons bool) {
	f.signal(unix.SIGTERM, daemons)
	f.signal(unix.SIGCONT, daemons)
}

// kill ends the family, which may take several calls: between the reading of the
// table and a signal, one outside the group can have got a child.
func (f family) kill(daemons bool) { f.signal(unix.SIGKILL, daemons) }

// signal sends to the group first, in one step that no fork escapes, then to
// those of the family that are outside.
func (f family) signal(sig unix.Signal, daemons bool) {
	_ = unix.Kill(-f.group, sig) // ESRCH: it is empty; EPERM: left by its user
	for _, p := range f.left(daemons) {
		if p.group != f.group {
			_ = unix.Kill(p.pid, sig) // the same
		}
	}
}

// left lists who still runs. When the table cannot be read, the group alone
// counts, and is taken to be there as long as it can be signalled.
func (f family) left(daemons bool) []process {
	table, err := processes()
	if err != nil {
		if unix.Kill(-f.group, 0) != nil {
			return nil
		}
		return []process{{pid: f.group, group: f.group}}
	}
	return slices.DeleteFunc(f.living(table), func(p process) bool {
		return !daemons && p.group != f.group && p.session != table[os.Getpid()].session
	})
}
