// Package storagetest is the contract of raftlock.Storage as tests, which every
// implementation runs: Run in a test of its own.
package storagetest
