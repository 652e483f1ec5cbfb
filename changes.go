package raftlock

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

// wish is what a call wants of the members: a change, or that a member leads. It
// says what is to be, and not what to do: who asks again finds it fulfilled.
type wish struct {
	change   change
	transfer string // the member that is to lead; then there is no change
}

// changes are the leader's way of changing the members, one at a time: raft
// makes an empty entry of a second change before the first is applied. Wishes
// wait here for their turn; each is looked at anew until it is fulfilled, or can
// be refused, and goes to the next leader with the leadership.
type changes struct {
	waiting []*call
	flight  *flyingChange
	handing *call // for which the leadership is being handed over
	stir    bool  // something may have changed for those who wait
}

// flyingChange is a change that is proposed.
type flyingChange struct {
	term, index uint64 // index is 0 until raft has given it a place
	call        *call  // nil for a change of the leader's own
}

// promoteBehind is how many entries a learner may be behind what is committed
// to be let vote: what it lacks then is on its way.
const promoteBehind = 256

// The answers that refuse a wish. details["change"] tells them apart.
const (
	detailChange = "change"

	changeExists  = "exists"
	changeUnknown = "unknown_member"
	changeTaken   = "taken"
	changeRefused = "refused"
)

func refusedChange(why string, code pb.ErrorCode, format string, args ...any) *failure {
	f := failed(code, outcomeNotProposed, format, args...)
	f.details[detailChange] = why
	return f
}

func noSuchMember(name string) *failure {
	return refusedChange(changeUnknown, pb.ErrorCode_INVALID_ARGUMENT, "there is no member %q", name)
}

func changeNotNow(format string, args ...any) *failure {
	return refusedChange(changeRefused, pb.ErrorCode_UNAVAILABLE, format, args...)
}

// tendChanges lets the wishes that wait go on as far as they can.
func (r *replica) tendChanges() {
	ch := &r.changes
	if !ch.stir {
		return
	}
	ch.stir = false
	if c := ch.handing; c != nil && !r.handingOver {
		ch.handing = nil
		r.answer(c, reply{failure: changeNotNow("no other member has taken the leadership in time: %s leads still", r.nameOf(r.self))})
	}
	waiting := ch.waiting
	ch.waiting = nil
	for _, c := range waiting {
		switch {
		case r.tooLate(c) || c.state.Load() == callLeft:
			r.abandonUnproposed(c)
		case !r.mayChange() || !r.tend(c):
			ch.waiting = append(ch.waiting, c)
		}
	}
	if r.mayChange() {
		r.promoteLearner()
	}
}

// mayChange reports whether a change may be proposed now.
func (r *replica) mayChange() bool {
	return r.office == officeOpen && !r.handingOver && !r.refused && r.changes.flight == nil
}

// tend looks at one wish: it is fulfilled, refused, or its next step is taken.
// False means that it waits on.
func (r *replica) tend(c *call) bool {
	next, f := r.nextStep(c.wish)
	switch {
	case f != nil:
		r.answer(c, reply{failure: f})
	case next == nil:
		r.answer(c, reply{})
	case next.wait:
		return false
	case next.heir != 0 || next.first:
		return r.handOverFor(c, next.heir)
	default:
		return r.proposeChange(&next.change, c)
	}
	return true
}

// step is what must be done next for a wish.
type step struct {
	change change
	heir   uint64 // the leadership must go to this node
	first  bool   // the leadership must go to another node first
	wait   bool   // it is not known yet who is there
}

// nextStep says what a wish needs, nil when it is fulfilled, or why it cannot be.
func (r *replica) nextStep(w *wish) (*step, *failure) {
	if w.transfer != "" {
		return r.nextOfTransfer(w.transfer)
	}
	c := w.change
	m := r.roster.find(c.name)
	switch c.kind {
	case changeAdd:
		switch {
		case m == nil:
			return &step{change: c}, nil
		case m.address == c.address:
			return nil, nil
		}
		return nil, refusedChange(changeExists, pb.ErrorCode_INVALID_ARGUMENT, "there is a member %q already, added with address %q", c.name, m.address)
	case changeBind:
		switch {
		case m == nil:
			return nil, noSuchMember(c.name)
		case m.node == c.node:
			return nil, nil
		case m.node != 0:
			return nil, refusedChange(changeTaken, pb.ErrorCode_INVALID_ARGUMENT, "member %q has come with another data directory", c.name)
		}
		c.since = m.since
		return &step{change: c}, nil
	}
	if m == nil || m.since != c.since || c.kind == changeReplace && m.node == 0 {
		return nil, nil
	}
	if f := r.losesQuorum(m); f != nil {
		return r.unlessNew(f)
	}
	if m.node == r.self {
		return &step{first: true}, nil
	}
	c.node = m.node
	return &step{change: c}, nil
}

func (r *replica) nextOfTransfer(to string) (*step, *failure) {
	m := r.roster.find(to)
	switch {
	case m == nil:
		return nil, noSuchMember(to)
	case m.node == r.self:
		return nil, nil
	case !m.voter:
		return nil, changeNotNow("member %q does not vote yet, and cannot lead", to)
	case !r.reaches(m.node):
		return r.unlessNew(changeNotNow("member %q cannot be reached by the leader", to))
	}
	return &step{heir: m.node}, nil
}

// unlessNew refuses a wish for want of members that are there, but not before
// this leader has led for long enough to have heard of all that are.
func (r *replica) unlessNew(f *failure) (*step, *failure) {
	if r.ticks-r.ledSince <= r.electionTicks {
		return &step{wait: true}, nil
	}
	return nil, f
}

// losesQuorum refuses to take a member away without which nothing could be
// committed: of those that are left a majority must be there now.
func (r *replica) losesQuorum(gone *record) *failure {
	if !gone.voter {
		return nil
	}
	left, here := 0, 0
	for i := range r.roster.records {
		m := &r.roster.records[i]
		if !m.voter || m.node == gone.node {
			continue
		}
		left++
		if m.node == r.self || r.reaches(m.node) {
			here++
		}
	}
	if left == 0 {
		return changeNotNow("member %q is the only one that votes: add another one first", gone.name)
	}
	if here <= left/2 {
		return changeNotNow("without member %q, %d of %d voting members can be reached, which is no majority: bring the others back first", gone.name, here, left)
	}
	return nil
}

// reaches reports whether a peer can be spoken to and was heard lately.
func (r *replica) reaches(node uint64) bool {
	return r.up[node] && r.sessions[node] != 0 && r.heardLately(node)
}

// heardLately reports whether a peer was heard within an election time-out.
func (r *replica) heardLately(node uint64) bool {
	tick, heard := r.heard[node]
	return heard && r.ticks-tick <= r.electionTicks
}

// handOverFor begins to hand the leadership over for a wish: to heir, or to
// anybody. The wish goes after it.
func (r *replica) handOverFor(c *call, heir uint64) bool {
	if !c.state.CompareAndSwap(callWaits, callTaken) {
		r.abandonUnproposed(c)
		return true
	}
	c.place = placeProposed
	r.changes.handing, r.heir = c, heir
	r.handOver()
	r.changes.stir = !r.handingOver // nobody can take it
	return true
}

// proposeChange puts a change into the log; c is nil for one of the leader's own.
func (r *replica) proposeChange(next *change, c *call) bool {
	if c != nil && !c.state.CompareAndSwap(callWaits, callTaken) {
		r.abandonUnproposed(c)
		return true
	}
	if err := r.raw.ProposeConfChange(confChange(next)); err != nil {
		if !errors.Is(err, raft.ErrProposalDropped) {
			r.logger.Warn("change of the members is not proposed", "error", err)
		}
		if c != nil {
			c.state.CompareAndSwap(callTaken, callWaits)
		}
		r.refused = true
		return false
	}
	if c != nil {
		c.place = placeProposed
	}
	r.changes.flight = &flyingChange{term: r.term, call: c}
	return true
}

// promoteLearner lets a learner vote that has caught up. Nobody has to ask for
// it, and a new leader goes on with it.
func (r *replica) promoteLearner() {
	var ready uint64
	r.raw.WithProgress(func(node uint64, kind raft.ProgressType, pr tracker.Progress) {
		if kind == raft.ProgressTypeLearner && pr.State == tracker.StateReplicate && pr.Match > 0 &&
			pr.Match+promoteBehind >= r.commit && r.reaches(node) && (ready == 0 || node < ready) {
			ready = node
		}
	})
	m := r.roster.byNode(ready)
	if m == nil || m.voter {
		return
	}
	r.proposeChange(&change{kind: changePromote, name: m.name, since: m.since, node: m.node}, nil)
}

// confChange is what a change means to raft, with the change itself aside.
func confChange(c *change) *raftpb.ConfChangeV2 {
	kind := raftpb.ConfChangeUpdateNode // which changes nothing there
	switch {
	case c.kind == changeBind:
		kind = raftpb.ConfChangeAddLearnerNode
	case c.kind == changePromote:
		kind = raftpb.ConfChangeAddNode
	case c.node != 0 && (c.kind == changeRemove || c.kind == changeReplace):
		kind = raftpb.ConfChangeRemoveNode
	}
	return &raftpb.ConfChangeV2{
		Changes: []*raftpb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(c.node)}},
		Context: c.encode(),
	}
}

// placedChange notes the place that raft gave to the change that is proposed.
// One that raft did not like has become an empty entry.
func (r *replica) placedChange(e *raftpb.Entry) {
	f := r.changes.flight
	if f == nil || f.index != 0 || f.term != e.GetTerm() {
		return
	}
	if e.GetType() == raftpb.EntryConfChangeV2 || len(e.GetData()) == 0 {
		f.index = e.GetIndex()
	}
}

// settleChange returns the change that the entry to be applied is in the place
// of, or nil, and gives back the call of one that is lost; see settle.
func (r *replica) settleChange(index, term uint64) *flyingChange {
	f := r.changes.flight
	if f == nil || f.term == term && f.index != index || f.term > term {
		return nil
	}
	r.changes.flight, r.changes.stir = nil, true
	if f.term == term {
		return f
	}
	r.retryWish(f.call)
	return nil
}

// retryWish gives a wish another way whose last step has not come about.
func (r *replica) retryWish(c *call) {
	if c == nil || c.place != placeProposed {
		return // it was answered meanwhile
	}
	if !c.state.CompareAndSwap(callTaken, callWaits) {
		r.answer(c, reply{failure: notProposed})
		return
	}
	r.route(c)
}

// applyChange applies an entry that changes the members. mine is the change as
// this member has proposed it, or nil.
func (r *replica) applyChange(e *raftpb.Entry, mine *flyingChange) error {
	c, cc, err := changeIn(e)
	if err != nil {
		return err
	}
	r.changes.stir = true
	next, err := r.roster.apply(&c, e.GetIndex())
	if err != nil {
		r.logger.Warn("change of the members does not fit", "error", err)
		if mine != nil {
			r.retryWish(mine.call)
		}
		return nil
	}
	r.conf = r.raw.ApplyConfChange(cc)
	r.roster, r.log.floor = next, next.index
	r.logger.Info("members have changed", "change", c.kind, "member", c.name, "address", c.address, "index", e.GetIndex())
	if mine != nil && mine.call != nil && mine.call.place == placeProposed {
		r.answer(mine.call, reply{})
	}
	return r.parted(&c)
}

// changeIn reads the change that an entry of raft's makes.
func changeIn(e *raftpb.Entry) (change, *raftpb.ConfChangeV2, error) {
	cc := new(raftpb.ConfChangeV2)
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return change{}, nil, fmt.Errorf("%w: change of the members: %w", errMalformed, err)
	}
	c, err := decodeChange(cc.GetContext())
	if errors.Is(err, errUnknownFormat) {
		return change{}, nil, fmt.Errorf("%w: %w", ErrUnknownFormat, err)
	}
	if err == nil && !proto.Equal(cc, confChange(&c)) {
		err = fmt.Errorf("%w: change of the members is not what it means to raft", errMalformed)
	}
	return c, cc, err
}

// parted forgets a node that is no member any more. The member itself ends.
func (r *replica) parted(c *change) error {
	if c.node == 0 || r.roster.byNode(c.node) != nil {
		r.agreeOnFormat()
		return nil
	}
	if c.node == r.self {
		return fmt.Errorf("%w, %s", ErrRemoved, removedRemedy)
	}
	r.forgetNode(c.node)
	r.agreeOnFormat()
	return nil
}

// forgetNode lets go of what is known of a node that is no member any more.
func (r *replica) forgetNode(node uint64) {
	delete(r.heard, node)
	delete(r.sendFailures, node)
	delete(r.formats.announced, node)
	delete(r.tidings.peers, node)
}

// nameOf is a node's name, "" when it has none.
func (r *replica) nameOf(node uint64) string {
	if m := r.roster.byNode(node); m != nil {
		return m.name
	}
	return ""
}

// leaveChanges sends the wishes after the leadership.
func (r *replica) leaveChanges() {
	ch := &r.changes
	waiting := ch.waiting
	ch.waiting = nil
	if c := ch.handing; c != nil {
		ch.handing = nil
		r.retryWish(c)
	}
	for _, c := range waiting {
		r.route(c)
	}
}

// expireChanges ends wishes that have run out of time on their way.
func (r *replica) expireChanges() {
	r.changes.stir = true
	for _, c := range r.changes.underWay() {
		if c.place == placeProposed && r.overdue(c) {
			r.answer(c, reply{failure: timedOut})
		}
	}
	if c := r.changes.handing; c != nil && c.answered {
		r.changes.handing = nil
	}
}

// underWay are the calls whose step is taken.
func (ch *changes) underWay() (calls []*call) {
	if ch.handing != nil {
		calls = append(calls, ch.handing)
	}
	if ch.flight != nil && ch.flight.call != nil {
		calls = append(calls, ch.flight.call)
	}
	return calls
}
