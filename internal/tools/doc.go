// Package tools is a module of its own for what building raftlock needs and
// running it does not: the generator of the protobuf code (protogen, which
// replaces protoc) and the linters, all pinned in this go.mod. The main module
// never sees their dependencies.
//
// The Makefile in the root calls them, from this directory:
//
//	go run ./protogen -root ../..
//
// and, from the root:
//
//	go tool -modfile=internal/tools/go.mod staticcheck ./...
package tools
