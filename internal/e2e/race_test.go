//go:build race

package e2e

// underRace says that the race detector makes members some five times slower.
const underRace = true
