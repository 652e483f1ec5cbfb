package history

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Rule is what a correct history keeps to.
type Rule string

// The rules. Each has a file or a section of its own, which says exactly when it
// is broken.
const (
	MutualExclusion Rule = "mutual exclusion"         // nobody is granted a lock within another's guaranteed time
	OneToken        Rule = "one token per request id" // a RequestID wins one grant
	UniqueTokens    Rule = "unique tokens"            // a token belongs to one grant
	GrowingTokens   Rule = "growing tokens"           // a later grant has the greater token
	NotUnasked      Rule = "no grant unasked"         // a grant is not seen before somebody has asked for it
	NotEarly        Rule = "no hold lost early"       // what was guaranteed is not taken away
	NoStaleToken    Rule = "no stale token accepted"  // what is over cannot be renewed, and does not write
	NoStaleRead     Rule = "no stale read"            // an answer shows the state of a moment within the call
	Expiry          Rule = "expiry within its bound"  // what has passed is over
	QueueOrder      Rule = "queue order"              // by priority, then in order of arrival
	WaitersServed   Rule = "waiters served"           // a lock that is free has no waiters
)

// Rules lists all of them.
func Rules() []Rule {
	return []Rule{MutualExclusion, OneToken, UniqueTokens, GrowingTokens, NotUnasked, NotEarly, NoStaleToken, NoStaleRead, Expiry, QueueOrder, WaitersServed}
}

// Violation is a rule that two operations break together.
type Violation struct {
	Rule Rule
	// First and Second are indices into History.Ops.
	First, Second int
	// Text says it in words.
	Text string
}

// Report is what the rules say about a history.
type Report struct {
	// Violations are at most 20 for each rule, by rule and in the order in which
	// they were found.
	Violations []Violation
	// Broken is how often each rule was broken.
	Broken map[Rule]int
	// Compared is how often each rule had two operations to compare: where that
	// is zero, its silence says nothing.
	Compared map[Rule]int
}

// Thin reports whether the history is too thin to tell: nothing is wrong with it,
// but no lock was granted a second time, so that it could have been wrong about
// exclusion.
func (r *Report) Thin() bool { return len(r.Violations) == 0 && r.Compared[MutualExclusion] == 0 }

// Err is nil when nothing is wrong, thin or not, and names all that is otherwise.
func (r *Report) Err() error {
	if len(r.Violations) == 0 {
		return nil
	}
	var text strings.Builder
	for i, v := range r.Violations {
		if i > 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintf(&text, "%s: %s", v.Rule, v.Text)
	}
	return fmt.Errorf("%w:\n%s", errBroken, text.String())
}

var errBroken = errors.New("history: rules are broken")

// shown is how many violations of a rule a report shows.
const shown = 20

func (r *Report) compared(rule Rule) { r.Compared[rule]++ }

// broken adds a violation. The text has a verb for each operation's number.
func (x *index) broken(rule Rule, first, second int, format string, args ...any) {
	x.report.Broken[rule]++
	if x.report.Broken[rule] > shown {
		return
	}
	text := fmt.Sprintf(format, args...)
	x.report.Violations = append(x.report.Violations, Violation{
		Rule: rule, First: first, Second: second,
		Text: fmt.Sprintf("%s; %s; %s", x.tell(first), x.tell(second), text),
	})
}

// tell is an operation in plain words.
func (x *index) tell(i int) string {
	o := &x.ops[i]
	var b strings.Builder
	fmt.Fprintf(&b, "operation %d", i+1)
	if o.Client != "" {
		fmt.Fprintf(&b, " of %s", o.Client)
	}
	fmt.Fprintf(&b, ", at %v", round(o.From))
	if o.Outcome != Open {
		fmt.Fprintf(&b, " to %v", round(o.To))
	}
	fmt.Fprintf(&b, ": %s", deed(o))
	switch o.Outcome {
	case OK:
	case Refused:
		fmt.Fprintf(&b, " (refused: %s)", o.Code)
	default:
		fmt.Fprintf(&b, " (%s)", o.Outcome)
	}
	return b.String()
}

// deed is what an operation did, or tried.
func deed(o *Op) string {
	who := fmt.Sprintf("%q", o.ClientID)
	if o.RequestID != "" {
		who += fmt.Sprintf("/%q", o.RequestID)
	}
	switch o.Call {
	case Acquire:
		if o.Outcome == OK {
			return fmt.Sprintf("%s acquires lock %q with token %d", who, o.Lock, o.Token)
		}
		return fmt.Sprintf("%s asks for lock %q", who, o.Lock)
	case Renew, Release:
		return fmt.Sprintf("%s %ss lock %q under token %d", who, o.Call, o.Lock, o.Token)
	case Enqueue:
		return fmt.Sprintf("%s joins the queue of lock %q", who, o.Lock)
	case Cancel:
		return fmt.Sprintf("%s leaves the queue of lock %q", who, o.Lock)
	case Write:
		return fmt.Sprintf("a write under token %d of lock %q", o.Token, o.Lock)
	case Look:
	}
	if o.Lock == "" {
		return "a look at many locks"
	}
	return fmt.Sprintf("a look at lock %q", o.Lock)
}

// round makes an instant readable.
func round(d time.Duration) time.Duration {
	if d == never {
		return d
	}
	return d.Round(time.Microsecond)
}
