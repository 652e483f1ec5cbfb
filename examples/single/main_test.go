package main

import (
	"fmt"
	"io"
	"os"
	"testing"
)

// The program runs twice on one directory, and the second token is greater.
func TestMainTwice(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if first, second := token(t), token(t); second <= first {
		t.Errorf("token %d after token %d", second, first)
	}
}

// token runs the program and returns the token that it prints.
func token(t *testing.T) (token int64) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = write
	main()
	os.Stdout = stdout
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(said), "nobody else holds invoices; my token is %d\n", &token); err != nil {
		t.Fatalf("it said %q: %v", said, err)
	}
	return token
}
