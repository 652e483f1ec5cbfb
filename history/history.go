package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// History is what clients did and saw. The order of Ops means nothing to the
// rules; reports number them from 1.
type History struct{ Ops []Op }

// ErrMalformed is what Read returns for what is no history. A repeat cannot help.
var ErrMalformed = errors.New("history: malformed")

// header is the first line of a history. A change that older readers would
// misunderstand gets another version.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

const (
	format  = "raftlock-history"
	version = 1
)

// WriteTo writes the history as lines of JSON: a header, then one operation each,
// so that operation n stands in line n+1. All times are nanoseconds.
func (h *History) WriteTo(w io.Writer) (int64, error) {
	counter := &countingWriter{w: w}
	buffered := bufio.NewWriter(counter)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(header{Format: format, Version: version})
	for i := range h.Ops {
		if err == nil {
			err = encoder.Encode(&h.Ops[i])
		}
	}
	if err == nil {
		err = buffered.Flush()
	}
	return counter.n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Read reads what WriteTo wrote. What is none of that is ErrMalformed, with the
// line; an error of r is returned as it is.
func Read(r io.Reader) (*History, error) {
	lines := bufio.NewReader(r)
	h := &History{}
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		atEnd := err != nil
		if line = bytes.TrimSpace(line); atEnd && len(line) == 0 && number > 1 {
			return h, nil
		}
		if err := h.take(line, number); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrMalformed, number, err)
		}
		if atEnd {
			return h, nil
		}
	}
}

func (h *History) take(line []byte, number int) error {
	if number == 1 {
		var head header
		if err := decode(line, &head); err != nil {
			return fmt.Errorf("no header: %w", err)
		}
		if head.Format != format || head.Version != version {
			return fmt.Errorf("it is %q of version %d, and must be %q of version %d", head.Format, head.Version, format, version)
		}
		return nil
	}
	var op Op
	if err := decode(line, &op); err != nil {
		return err
	}
	h.Ops = append(h.Ops, op)
	return op.validate()
}

// decode takes one value, and nothing that it does not know: a field that is
// misspelt would hide what it says.
func decode(line []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the line is empty")
		}
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows behind the object")
	}
	return nil
}

var outcomes = map[Outcome]bool{OK: true, Refused: true, Failed: true, Unknown: true, Open: true}

var calls = map[Call]bool{Acquire: true, Release: true, Renew: true, Look: true, Enqueue: true, Cancel: true, Write: true}

// validate says what is impossible about an operation.
func (o *Op) validate() error {
	switch {
	case !calls[o.Call]:
		return fmt.Errorf("there is no call %q", o.Call)
	case !outcomes[o.Outcome]:
		return fmt.Errorf("there is no outcome %q", o.Outcome)
	case o.From < 0 || o.Outcome != Open && o.To < o.From || o.Outcome == Open && o.To != 0:
		return fmt.Errorf("it is from %d to %d", o.From, o.To)
	case max(o.From, o.To, abs(o.TTL), abs(o.Timeout), abs(o.Expires)) > longest:
		return fmt.Errorf("a time in it is longer than %v", longest)
	}
	return nil
}

// longest bounds every time in a history, so that sums of them are times, too.
const longest = 40 * 365 * 24 * time.Hour

func abs(d time.Duration) time.Duration { return max(d, -max(d, -math.MaxInt64)) }
