package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/raftlock/raftlock/history"
)

// effort is a search for orders of the operations, and what it may take. When ctx
// ends, so does the search, and what it returns says nothing.
type effort struct {
	ctx      context.Context
	deadline time.Time
	room     int64 // bytes for what is tried at one piece: porcupine forgets none of it
	least    int   // see cut
	large    bool  // the room was not enough
}

// mostRoom is enough for some 100 000 deeds that cannot be cut, if few of them have
// to be tried more than once.
const mostRoom = 2 << 30

// stateSize is about what a step takes beside one bit for each deed.
const stateSize = 512

// steps is how many there is room for.
func (e *effort) steps(p piece) int64 { return e.room / (stateSize + int64(len(p.deeds))/8) }

// search goes from lock to lock. The answer is never that there is no order: what
// is found says so.
func (e *effort) search(h *history.History) (answer porcupine.CheckResult, found []violationView) {
	answer = porcupine.Ok
	deeds := deedsOf(h)
	for _, name := range slices.Sorted(maps.Keys(deeds)) {
		done := 0
		for _, p := range cut(deeds[name], e.least) {
			of := e.explain(p)
			if of == porcupine.Illegal {
				text := fmt.Sprintf("no order of what %d operations show of lock %q explains all of it", len(deeds[name]), name)
				found = append(found, violationView{Rule: "order of operations", Text: text + e.farthest(p, done)})
			} else if of == porcupine.Unknown {
				answer = porcupine.Unknown
			}
			if of != porcupine.Ok {
				break
			}
			done += len(p.deeds)
		}
	}
	return answer, found
}

// explain looks for an order of one piece.
func (e *effort) explain(p piece) porcupine.CheckResult {
	left := time.Until(e.deadline)
	if left <= 0 || e.ctx.Err() != nil { // which porcupine would take for no bound
		return porcupine.Unknown
	}
	m, stopped := model(e.ctx, p.from, e.steps(p))
	answer := porcupine.CheckOperationsTimeout(m, operations(p.deeds), left)
	if answer == porcupine.Illegal && stopped() {
		e.large = true
		return porcupine.Unknown
	}
	return answer
}

func operations(deeds []deed) (ops []porcupine.Operation) {
	for _, d := range deeds {
		ops = append(ops, porcupine.Operation{Input: d, Call: int64(d.op.From), Return: int64(d.op.To)})
	}
	return ops
}

// farthest tells how far orders of the operations get in a piece that has none,
// when so many were done before it. What does not fit is only looked for where
// there is something: that is slower, and may find nothing in the time that is left.
func (e *effort) farthest(p piece, done int) string {
	m, _ := model(e.ctx, p.from, e.steps(p))
	_, info := porcupine.CheckOperationsVerbose(m, operations(p.deeds), max(time.Until(e.deadline), time.Second))
	var longest []porcupine.Operation
	for _, lock := range info.PartialLinearizationsOperations() {
		for _, order := range lock {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	fits := map[int]bool{}
	for _, op := range longest {
		fits[op.Input.(deed).number] = true
	}
	rest := slices.DeleteFunc(slices.Clone(p.deeds), func(d deed) bool { return fits[d.number] })
	if len(rest) == 0 || done+len(longest) == 0 {
		return ""
	}
	first := slices.MinFunc(rest, func(a, b deed) int { return cmp.Compare(a.op.To, b.op.To) })
	return fmt.Sprintf(": one explains %d, and none goes on to operation %d, the %s at %v to %v",
		done+len(longest), first.number, first.op.Call, first.op.From, first.op.To)
}
