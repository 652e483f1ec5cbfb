package memnet

import "slices"

// link is one direction between two addresses.
type link struct{ from, to string }

func (l link) back() link { return link{l.to, l.from} }

// topology says which links are cut, and for which of three reasons.
type topology struct {
	cuts     map[link]bool
	isolated map[string]bool
	groups   [][]string
}

func (t *topology) heal() {
	*t = topology{cuts: make(map[link]bool), isolated: make(map[string]bool)}
}

func (t *topology) cut(l link) bool {
	if t.cuts[l] {
		return true
	}
	if l.from == l.to {
		return false // no partition separates a machine from itself
	}
	return t.isolated[l.from] || t.isolated[l.to] || t.apart(l)
}

// apart reports whether both addresses are in groups, but in none together.
func (t *topology) apart(l link) bool {
	var from, to bool
	for _, group := range t.groups {
		inFrom, inTo := slices.Contains(group, l.from), slices.Contains(group, l.to)
		if inFrom && inTo {
			return false
		}
		from, to = from || inFrom, to || inTo
	}
	return from && to
}
