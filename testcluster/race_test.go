//go:build race

package testcluster_test

// underRace says that the race detector makes everything some ten times slower.
const underRace = true
