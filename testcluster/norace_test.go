//go:build !race

package testcluster_test

const underRace = false
