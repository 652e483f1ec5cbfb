// Package tools is a module of its own for what building raftlock needs and
// running it does not: the generator of the protobuf code (protogen, which
// replaces protoc), the linters, all pinned in this go.mod, and what breaks the
// code to see the tests fail (mutants). The main module never sees their
// dependencies.
//
// The Makefile in the root calls them, from this directory:
//
//	go run ./protogen -root ../..
//	go run ./mutants -root ../..
//
// and, from the root:
//
//	go tool -modfile=internal/tools/go.mod staticcheck ./...
package tools
