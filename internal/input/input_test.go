package input

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestBounds(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		fault *Fault
		want  string // the field; "" for no fault
		max   string
	}{
		"id":              {ID("lock_id", "é"+long(254)), "", ""},
		"no id":           {ID("lock_id", ""), "lock_id", "256"},
		"long id":         {ID("client_id", long(257)), "client_id", "256"},
		"control":         {ID("lock_id", "a\x7f"), "lock_id", ""},
		"other control":   {ID("lock_id", "a\u0085"), "lock_id", ""},
		"not UTF-8":       {ID("lock_id", "\xff"), "lock_id", ""},
		"no request":      {Request(""), "", ""},
		"request":         {Request(long(128)), "", ""},
		"long request":    {Request(long(129)), "request_id", "128"},
		"bad request":     {Request("\x00"), "request_id", ""},
		"priority":        {Priority(-1000), "", ""},
		"low priority":    {Priority(-1001), "priority", "1000"},
		"high priority":   {Priority(1001), "priority", "1000"},
		"entries":         {Entries(32), "", ""},
		"many entries":    {Entries(33), "metadata", "32"},
		"entry":           {Entry("k\n", long(256)), "", ""},
		"no key":          {Entry("", ""), "metadata", "64"},
		"long key":        {Entry(long(65), ""), "metadata", "64"},
		"long value":      {Entry("k", long(257)), "metadata", "256"},
		"bad key":         {Entry("\xff", ""), "metadata", ""},
		"bad value":       {Entry("k", "\xff"), "metadata", ""},
		"pattern":         {Pattern("lock_id_pattern", long(1024)), "", ""},
		"long pattern":    {Pattern("lock_id_pattern", long(1025)), "lock_id_pattern", "1024"},
		"start":           {StartAfter(long(256)), "", ""},
		"long start":      {StartAfter(long(257)), "start_after", "256"},
		"limit":           {Count("limit", 0), "", ""},
		"negative offset": {Count("offset", -1), "offset", "2147483647"},
	} {
		switch {
		case (c.fault == nil) != (c.want == ""):
			t.Errorf("%s: %+v", name, c.fault)
		case c.fault == nil:
		case c.fault.Field != c.want || c.fault.Max != c.max || (c.fault.Min == "") != (c.max == "") || !strings.HasPrefix(c.fault.Why, c.want+" "):
			t.Errorf("%s: %+v", name, c.fault)
		}
	}
}

func FuzzQuoted(f *testing.F) {
	for _, seed := range []string{"", "a", "\xff", strings.Repeat("\xff", 100), strings.Repeat("日", 30), strings.Repeat("x", 62), strings.Repeat("x", 63)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		q := Quoted(value)
		if len(q) > maxQuoted || !utf8.ValidString(q) || !strings.HasPrefix(q, `"`) {
			t.Errorf("%q", q)
		}
	})
}
