//go:build race

package history

// underRace says that the race detector makes everything some ten times slower.
const underRace = true
