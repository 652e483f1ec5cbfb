package raftlock

import (
	"errors"
	"reflect"
	"testing"
)

// threeMembers are two voters and a place that waits.
func threeMembers() *roster {
	return &roster{index: 7, records: []record{
		{name: "a", since: 1, node: 11, incarnation: 11, voter: true},
		{name: "b", since: 1, node: 12, incarnation: 12, voter: true},
		{name: "c", since: 7, address: "there"},
	}}
}

func TestRosterApply(t *testing.T) {
	bound := threeMembers()
	bound.records[2].node, bound.records[2].incarnation = 13, 13
	alone := &roster{index: 1, records: threeMembers().records[:1]}
	for name, c := range map[string]struct {
		was    *roster
		change change
		fits   bool
		want   []record // as it is after a change that fits
	}{
		"add": {threeMembers(), change{kind: changeAdd, name: "bb", address: "x"}, true, []record{
			threeMembers().records[0], threeMembers().records[1], {name: "bb", since: 9, address: "x"}, threeMembers().records[2]}},
		"add one that exists":        {threeMembers(), change{kind: changeAdd, name: "c", address: "there"}, false, nil},
		"remove":                     {threeMembers(), change{kind: changeRemove, name: "a", since: 1, node: 11}, true, threeMembers().records[1:]},
		"remove an empty place":      {threeMembers(), change{kind: changeRemove, name: "c", since: 7}, true, threeMembers().records[:2]},
		"remove nobody":              {threeMembers(), change{kind: changeRemove, name: "d", since: 1, node: 11}, false, nil},
		"remove of another tenancy":  {threeMembers(), change{kind: changeRemove, name: "a", since: 2, node: 11}, false, nil},
		"remove of another node":     {threeMembers(), change{kind: changeRemove, name: "a", since: 1, node: 12}, false, nil},
		"remove one who came":        {bound, change{kind: changeRemove, name: "c", since: 7}, false, nil},
		"remove the last that votes": {alone, change{kind: changeRemove, name: "a", since: 1, node: 11}, false, nil},
		"replace the last":           {alone, change{kind: changeReplace, name: "a", since: 1, node: 11}, false, nil},
		"replace": {threeMembers(), change{kind: changeReplace, name: "b", since: 1, node: 12}, true, []record{
			threeMembers().records[0], {name: "b", since: 9}, threeMembers().records[2]}},
		"bind":                           {threeMembers(), change{kind: changeBind, name: "c", since: 7, node: 13}, true, bound.records},
		"bind a second":                  {bound, change{kind: changeBind, name: "c", since: 7, node: 14}, false, nil},
		"bind one that is there":         {threeMembers(), change{kind: changeBind, name: "c", since: 7, node: 12}, false, nil},
		"bind nobody":                    {threeMembers(), change{kind: changeBind, name: "c", since: 7}, false, nil},
		"promote one that has not come":  {threeMembers(), change{kind: changePromote, name: "c", since: 7}, false, nil},
		"promote one that votes":         {threeMembers(), change{kind: changePromote, name: "a", since: 1, node: 11}, false, nil},
		"promote one of another tenancy": {bound, change{kind: changePromote, name: "c", since: 6, node: 13}, false, nil},
	} {
		was := *c.was
		kept := append([]record(nil), c.was.records...)
		next, err := was.apply(&c.change, 9)
		switch {
		case c.fits != (err == nil) || !c.fits && !errors.Is(err, errNoFit):
			t.Errorf("%s: %v", name, err)
		case c.fits && (next.index != 9 || !reflect.DeepEqual(next.records, c.want)):
			t.Errorf("%s: %+v, want %+v", name, next, c.want)
		case c.fits && next.hash() == was.hash():
			t.Errorf("%s leaves the hash as it was", name)
		}
		if !reflect.DeepEqual(kept, was.records) {
			t.Errorf("%s changes the roster itself", name)
		}
	}
	next, err := bound.apply(&change{kind: changePromote, name: "c", since: 7, node: 13}, 9)
	if err != nil || next.voters() != 3 {
		t.Errorf("promote: %v, %v", next, err)
	}
}
