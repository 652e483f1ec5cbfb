package testcluster_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A unit test links what a member and a client are, and of gRPC no more beside that
// than WithGRPC serves with: no log on disk, no sockets, no loggers or metrics.
func TestLinksNoMoreThanItNeeds(t *testing.T) {
	needed := slices.Concat(depsOf(t, "../client"), depsOf(t, ".."), []string{
		"github.com/raftlock/raftlock/testcluster",
		"github.com/raftlock/raftlock/history",
		"github.com/raftlock/raftlock/internal/lockservice",
		"github.com/raftlock/raftlock/internal/memnet",
	})
	for _, dep := range depsOf(t, ".") {
		module, _, _ := strings.Cut(dep, "/")
		standard := !strings.Contains(module, ".")
		served := strings.HasPrefix(dep, "google.golang.org/grpc/health/") || strings.HasPrefix(dep, "google.golang.org/grpc/reflection") ||
			strings.HasPrefix(dep, "google.golang.org/protobuf/") || dep == "google.golang.org/grpc/test/bufconn"
		if !standard && !served && !slices.Contains(needed, dep) {
			t.Errorf("testcluster links %s", dep)
		}
	}
}

func depsOf(t *testing.T, dir string) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
