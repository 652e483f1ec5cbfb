//go:build !linux

package main

func worker() int { return 1 }
