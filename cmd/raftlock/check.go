package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	c := &checking{room: mostRoom}
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a recorded history keeps the promises",
		Long: `Reads a history that package history has recorded, - is standard input, and says
whether the cluster kept its promises to those who used it. Each violation names a
rule and the two operations that break it. If no rule is broken, it looks for an
order of the operations that explains all their answers.

It exits with 0 if the promises were kept, 1 if one was broken, 2 if there is no
history to be read, and 3 if it is too thin to tell, or --timeout was too short, or
the search for an order would take more than 2 GB of memory.`,
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
	room    int64 // see effort
	json    bool
}

// finding is what --json shows.
type finding struct {
	Verdict    string               `json:"verdict"` // kept, violated, thin, timeout, large
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
	e := &effort{ctx: ctx, deadline: time.Now().Add(c.timeout), room: c.room, least: leastPiece}
	if len(v.Violations) == 0 {
		var found []violationView
		answer, found = e.search(h)
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
	case e.large:
		v.Verdict, v.code = "large", exitThin
		v.why = fmt.Sprintf("no rule is broken, and the search for an order of the operations was given up at %d MB", e.room>>20)
	case answer == porcupine.Unknown:
		v.Verdict, v.code = "timeout", exitThin
		v.why = fmt.Sprintf("no rule is broken, and %v were too short to find an order of the operations: --timeout gives more", c.timeout)
	default:
		v.Verdict = "kept"
	}
	return v, nil
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
