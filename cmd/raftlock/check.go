package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/history"
)

// The exit codes of check, beside those of all commands.
const (
	exitMalformed = 2 // there is no history to be read
	exitThin      = 3 // nothing is wrong, and nothing is shown either
)

func checkCommand() *cobra.Command {
	c := &checking{}
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a recorded history keeps the promises",
		Long: `Reads a history that package history has recorded, - is standard input, and says
whether the cluster kept its promises to those who used it. Each violation names a
rule and the two operations that break it. If no rule is broken, it looks for an
order of the operations that explains all their answers.

It exits with 0 if the promises were kept, 1 if one was broken, 2 if there is no
history to be read, and 3 if it is too thin to tell, or --timeout was too short.`,
		Example: `  raftlock check history.jsonl
  gunzip -c history.jsonl.gz | raftlock check -`,
		Args: exactly("FILE"),
		RunE: c.run,
	}
	cmd.Flags().DurationVar(&c.timeout, "timeout", 30*time.Second, "how `long` to look for an order of the operations")
	cmd.Flags().BoolVar(&c.json, "json", false, "print a JSON object")
	return cmd
}

type checking struct {
	timeout time.Duration
	json    bool
}

// finding is what --json shows.
type finding struct {
	Verdict    string               `json:"verdict"` // kept, violated, thin, timeout
	Operations int                  `json:"operations"`
	Compared   map[history.Rule]int `json:"compared"`
	Broken     map[history.Rule]int `json:"broken,omitempty"`
	Violations []violationView      `json:"violations,omitempty"`

	code int
	why  string
}

// violationView has no operations if it is no rule that is broken, and no order
// of the operations that is found.
type violationView struct {
	Rule       string `json:"rule"`
	Operations []int  `json:"operations,omitempty"` // their numbers, from 1: number n is in line n+1
	Text       string `json:"text"`
}

func (c *checking) run(cmd *cobra.Command, args []string) error {
	if c.timeout <= 0 {
		return misuse("--timeout is %v, and must be more than nothing", c.timeout)
	}
	h, err := readHistory(args[0], cmd.InOrStdin())
	if err != nil {
		return &exit{exitMalformed, err}
	}
	v, err := c.judge(cmd.Context(), h)
	if err != nil {
		return err
	}
	if c.json {
		err = printJSON(cmd.OutOrStdout(), v)
	} else {
		err = v.print(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	if v.code != exitDone {
		return &exit{v.code, errors.New(v.why)}
	}
	return nil
}

func readHistory(name string, stdin io.Reader) (h *history.History, err error) {
	if name == "-" {
		return history.Read(stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return history.Read(f)
}

// judge lets the rules speak first: they name what does not go together. The
// search is for what no rule is about. The error is that of ctx, if it ends.
func (c *checking) judge(ctx context.Context, h *history.History) (*finding, error) {
	report := h.Check(history.Bounds{})
	v := &finding{Operations: len(h.Ops), Compared: report.Compared, Broken: report.Broken}
	for _, broken := range report.Violations {
		v.Violations = append(v.Violations, violationView{
			Rule: string(broken.Rule), Operations: []int{broken.First + 1, broken.Second + 1}, Text: broken.Text,
		})
	}
	answer := porcupine.Ok
	if len(v.Violations) == 0 {
		var found []violationView
		answer, found = search(ctx, h, c.timeout)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v.Violations = append(v.Violations, found...)
	}
	switch {
	case len(v.Violations) > 0:
		v.Verdict, v.code, v.why = "violated", exitFailed, "the cluster broke its promises"
	case report.Thin():
		v.Verdict, v.code = "thin", exitThin
		v.why = "the history is too thin to tell: no lock is granted twice in it"
	case answer == porcupine.Unknown:
		v.Verdict, v.code = "timeout", exitThin
		v.why = fmt.Sprintf("no rule is broken, and %v were too short to find an order of the operations: --timeout gives more", c.timeout)
	default:
		v.Verdict = "kept"
	}
	return v, nil
}

// search looks for orders, lock after lock, until the time is over. When ctx ends,
// so does the search, and what it returns says nothing.
func search(ctx context.Context, h *history.History, timeout time.Duration) (answer porcupine.CheckResult, found []violationView) {
	answer = porcupine.Ok
	deadline := time.Now().Add(timeout)
	deeds := deedsOf(h)
	for _, name := range slices.Sorted(maps.Keys(deeds)) {
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil { // which porcupine would take for no bound
			return porcupine.Unknown, found
		}
		switch porcupine.CheckOperationsTimeout(model(ctx), operations(deeds[name]), left) {
		case porcupine.Unknown:
			answer = porcupine.Unknown
		case porcupine.Illegal:
			found = append(found, violationView{Rule: "order of operations", Text: unexplained(ctx, name, deeds[name], time.Until(deadline))})
		case porcupine.Ok:
		}
	}
	return answer, found
}

func operations(deeds []deed) (ops []porcupine.Operation) {
	for _, d := range deeds {
		ops = append(ops, porcupine.Operation{Input: d, Call: int64(d.op.From), Return: int64(d.op.To)})
	}
	return ops
}

// unexplained tells how far orders of the operations get. What does not fit is
// only looked for where there is something: that is slower, and may find nothing
// in the time that is left.
func unexplained(ctx context.Context, name string, deeds []deed, left time.Duration) string {
	text := fmt.Sprintf("no order of what %d operations show of lock %q explains all of it", len(deeds), name)
	_, info := porcupine.CheckOperationsVerbose(model(ctx), operations(deeds), max(left, time.Second))
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
	rest := slices.DeleteFunc(slices.Clone(deeds), func(d deed) bool { return fits[d.number] })
	if len(rest) == 0 || len(longest) == 0 {
		return text
	}
	first := slices.MinFunc(rest, func(a, b deed) int { return cmp.Compare(a.op.To, b.op.To) })
	return text + fmt.Sprintf(": one explains %d, and none goes on to operation %d, the %s at %v to %v",
		len(longest), first.number, first.op.Call, first.op.From, first.op.To)
}

func (v *finding) print(out io.Writer) error {
	for _, broken := range v.Violations {
		if _, err := fmt.Fprintf(out, "%s: %s\n", broken.Rule, broken.Text); err != nil {
			return err
		}
	}
	compared, total := 0, 0
	for _, n := range v.Compared {
		compared += n
	}
	for _, n := range v.Broken {
		total += n
	}
	total = max(total, len(v.Violations))
	summary := fmt.Sprintf("%d operations, %d comparisons, %d violations", v.Operations, compared, total)
	if total > len(v.Violations) {
		summary += fmt.Sprintf(", of which %d are shown", len(v.Violations))
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", v.Verdict, summary)
	return err
}
