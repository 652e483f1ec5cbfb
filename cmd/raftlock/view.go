package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/raftlock/raftlock/client"
)

// lockView is a lock as --json shows it. Instants are those of the leader's wall
// clock, what is left is counted here and now.
type lockView struct {
	Lock       string            `json:"lock"`
	Held       bool              `json:"held"`
	Owner      string            `json:"owner,omitempty"`
	Token      int64             `json:"token"` // of the last grant, if it is not held
	AcquiredAt *time.Time        `json:"acquired_at,omitempty"`
	ModifiedAt *time.Time        `json:"modified_at,omitempty"`
	Left       float64           `json:"left_seconds"`
	Waiters    int32             `json:"waiters"`
	Queue      []waiterView      `json:"queue,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

type waiterView struct {
	Position int32      `json:"position"` // from 1
	Client   string     `json:"client"`
	Priority int32      `json:"priority"`
	Since    *time.Time `json:"since,omitempty"`
	TimesOut float64    `json:"times_out_seconds"`
}

func viewOf(info *client.LockInfo, now time.Time) lockView {
	v := lockView{
		Lock: info.LockID, Held: info.OwnerID != "", Owner: info.OwnerID, Token: info.Version,
		ModifiedAt: instant(info.LastModifiedAt), Waiters: info.WaiterCount, Metadata: info.Metadata,
	}
	if v.Held {
		v.AcquiredAt, v.Left = instant(info.AcquiredAt), seconds(info.ExpiresAt, now)
	}
	for _, w := range info.WaitersInfo {
		v.Queue = append(v.Queue, waiterView{
			Position: w.Position + 1, Client: w.ClientID, Priority: w.Priority,
			Since: instant(w.EnqueuedAt), TimesOut: seconds(w.TimeoutAt, now),
		})
	}
	return v
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}

// seconds are what is left until then, to the millisecond.
func seconds(then, now time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, then.Sub(now)).Round(time.Millisecond).Seconds()
}

// span shows seconds to people.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d >= 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

func clockTime(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// pairs shows a map in the order of its keys.
func pairs(m map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, key+"="+m[key])
	}
	return strings.Join(list, " ")
}

// orDash is what stands in a column that has nothing to say.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// table writes rows in columns, the first row being their names.
func table(out io.Writer, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		// A cell that ends its line has no tab: nothing is padded behind it.
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// printJSON writes a value as people can read it, too.
func printJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}
