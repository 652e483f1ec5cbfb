package fence_test

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/raftlock/raftlock/fence"
)

func TestParseToken(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "42": 42, "1790000000000001": 1790000000000001, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := fence.ParseToken(text); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "0", "-1", "+1", "01", " 1", "1 ", "1_000", "0x1", "1.0", "1e3", "one", "١", "9223372036854775808", "1\x00",
		strings.Repeat("9", 1<<20),
	} {
		got, err := fence.ParseToken(text)
		if got != 0 || !errors.Is(err, fence.ErrInvalidToken) || !strings.Contains(err.Error(), "field 'token'") {
			t.Errorf("%.20q is %d, %v", text, got, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
	}
}

// FuzzParseToken holds that a token has one spelling, and that no text is a panic.
func FuzzParseToken(f *testing.F) {
	for _, text := range []string{"1", "0", "-1", "+7", "007", "9223372036854775807", "9223372036854775808", "1_0", "", "١٢"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := fence.ParseToken(text)
		switch {
		case err != nil && (token != 0 || !errors.Is(err, fence.ErrInvalidToken)):
			t.Errorf("%q is %d, %v", text, token, err)
		case err == nil && (token < 1 || strconv.FormatInt(token, 10) != text):
			t.Errorf("%q is taken for %d", text, token)
		}
	})
}
