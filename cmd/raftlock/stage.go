package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// stage is where the demo talks: plain lines, with a little colour when somebody
// watches.
type stage struct {
	out    io.Writer
	colour bool
	err    error // the first error of out; nothing is written after it
}

// The colours, as terminals number them.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func newStage(out io.Writer) *stage {
	return &stage{out: out, colour: isTerminal(out) && os.Getenv("NO_COLOR") == ""}
}

// isTerminal reports whether out is a terminal that knows colours.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || runtime.GOOS == "windows" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (s *stage) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (s *stage) line(text string) {
	if s.err == nil {
		_, s.err = fmt.Fprintln(s.out, strings.TrimRight(text, " "))
	}
}

// title begins a part.
func (s *stage) title(number int, text string) {
	s.line("")
	s.line(s.paint(bold, fmt.Sprintf("%d. %s", number, text)))
}

// say writes one line of a part.
func (s *stage) say(format string, args ...any) { s.line("   " + fmt.Sprintf(format, args...)) }

// aside writes what explains, rather than tells.
func (s *stage) aside(format string, args ...any) {
	s.line("   " + s.paint(dim, fmt.Sprintf(format, args...)))
}

// token is how a fencing token is shown.
func (s *stage) token(version int64) string { return s.paint(cyan, fmt.Sprint("token ", version)) }

// good, bad and loud are words that should be seen.
func (s *stage) good(text string) string { return s.paint(green, text) }
func (s *stage) bad(text string) string  { return s.paint(yellow, text) }
func (s *stage) loud(text string) string { return s.paint(red, text) }

// took shows how long something took, to three digits or so.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d%time.Second == 0:
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
