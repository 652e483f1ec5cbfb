package raftlock_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The tests of this file hold the design's arrows between packages and the
// purity of the lock table; manners_test.go holds how the module behaves in
// somebody else's process, docs_test.go that the documentation is true.

const module = "github.com/raftlock/raftlock"

// Each package of the module, and what it may be made of: the packages that it
// may import, and with them what those may.
var arrows = map[string][]string{
	"pb":               {},
	"internal/clock":   {},
	"internal/callctx": {},
	"internal/input":   {},
	"client":           {"pb", "internal/clock", "internal/callctx", "internal/input"},
	"":                 {"client", "pb", "internal/clock", "internal/callctx", "internal/input"},

	"internal/lockservice": {"client", "pb", "internal/clock", "internal/callctx"},

	"prommetrics": {"client"},
	"fence":       {},
	"history":     {"client", "pb", "internal/clock"},

	"internal/walstore":      {""},
	"internal/peerwire":      {""},
	"internal/memnet":        {""},
	"internal/storagetest":   {""},
	"internal/transporttest": {""},
	"testcluster":            {"", "client", "history", "internal/lockservice", "internal/memnet"},
	"embed":                  {"", "client", "internal/walstore", "internal/peerwire", "internal/lockservice"},
	"internal/e2e":           {}, // nothing but tests
	"internal/supervise":     {},
	"cmd/raftlock":           {"", "client", "embed", "history", "internal/supervise"},
	"examples/":              {"", "client", "embed", "fence"}, // each of them
}

// What must never be linked, however far away: etcd's log registers metrics
// when it is, and drags in a logger. Package fence is for programs that need
// nothing else of this module.
var unlinked = map[string][]string{
	"pb":          {"go.etcd.io/", "go.uber.org/", "github.com/prometheus/"},
	"client":      {"go.etcd.io/", "go.uber.org/", "github.com/prometheus/", "github.com/google/btree"},
	"":            {"go.etcd.io/etcd/", "go.uber.org/", "github.com/prometheus/"},
	"testcluster": {"go.etcd.io/etcd/", "go.uber.org/", "github.com/prometheus/"},
	"fence":       {"github.com/", "go.", "golang.org/", "google.golang.org/"}, // the standard library is all
}

// TestArrows holds which package may know which.
func TestArrows(t *testing.T) {
	for _, p := range modulePackages(t) {
		place := p.name
		if strings.HasPrefix(place, "examples/") {
			place = "examples/"
		}
		if _, ok := arrows[place]; !ok {
			t.Errorf("package %q has no place in arrows", p.name)
			continue
		}
		allowed := reach(place)
		for _, dep := range p.Deps {
			name, ours := inModule(dep)
			if ours && !slices.Contains(allowed, name) {
				t.Errorf("package %q is made of %q, which it must not know", p.name, name)
			}
			for _, prefix := range unlinked[p.name] {
				if strings.HasPrefix(dep, prefix) {
					t.Errorf("package %q links %s", p.name, dep)
				}
			}
		}
		for _, dep := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			user := slices.Contains([]string{"embed", "cmd/raftlock", "examples/", "internal/e2e"}, place)
			if dep == module+"/embed" && !user {
				t.Errorf("package %q, or a test of it, imports embed: only programs and tests of whole processes do", p.name)
			}
		}
	}
}

// reach lists all packages that a place in arrows may be made of.
func reach(place string) (names []string) {
	for _, name := range arrows[place] {
		names = append(append(names, name), reach(name)...)
	}
	return names
}

// goPackage is what the go command says about a package of the module.
type goPackage struct {
	name string // "" is the root

	ImportPath, Dir                          string
	Imports, TestImports, XTestImports, Deps []string
}

var listPackages = sync.OnceValues(func() ([]*goPackage, error) {
	list := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps", "./...")
	list.Env = append(os.Environ(), "GOWORK=off") // a workspace of other modules too would list those
	out, err := list.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%w: %s", err, failed.Stderr)
	} else if err != nil {
		return nil, err
	}
	var packages []*goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(goPackage)
		if err := decoder.Decode(p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		p.name, _ = inModule(p.ImportPath)
		packages = append(packages, p)
	}
})

func modulePackages(t *testing.T) []*goPackage {
	t.Helper()
	packages, err := listPackages()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return packages
}

// inModule is an import path within the module, "" for the root.
func inModule(importPath string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(importPath, module)
	return strings.TrimPrefix(rest, "/"), ok && (rest == "" || rest[0] == '/')
}

// source is a package's Go files, parsed, and as far as possible typed: names and
// fields of the package are resolved, what comes from imports is not.
type source struct {
	fset  *token.FileSet
	files map[string]*ast.File // by file name
	info  *types.Info
}

// parse reads the files of a directory that keep admits.
func parse(t *testing.T, dir string, keep func(name string) bool) *source {
	t.Helper()
	s := &source{fset: token.NewFileSet(), files: map[string]*ast.File{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string][]*ast.File{} // a directory has a second one in its external tests
	for _, name := range names {
		if !keep(filepath.Base(name)) {
			continue
		}
		file, err := parser.ParseFile(s.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if !ast.IsGenerated(file) {
			s.files[filepath.Base(name)] = file
			packages[file.Name.Name] = append(packages[file.Name.Name], file)
		}
	}
	s.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: empty{}, Error: func(error) {}} // for every name of an import there is one
	for _, list := range packages {
		_, _ = config.Check(dir, s.fset, list, s.info)
	}
	return s
}

// at is where something stands, for a message.
func (s *source) at(node ast.Node) string {
	p := s.fset.Position(node.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// empty is an importer of packages without contents.
type empty struct{}

var versionPath = regexp.MustCompile(`^v[0-9]+$`)

func (empty) Import(importPath string) (*types.Package, error) {
	name := path.Base(importPath)
	if versionPath.MatchString(name) {
		name = path.Base(path.Dir(importPath))
	}
	p := types.NewPackage(importPath, name)
	p.MarkComplete()
	return p, nil
}

func isTest(name string) bool    { return strings.HasSuffix(name, "_test.go") }
func isProduct(name string) bool { return !isTest(name) }

// goDirs lists the directories of the main module that hold Go files.
func goDirs(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			if dir := filepath.Dir(name); strings.HasSuffix(name, ".go") && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
			return nil
		case name == ".":
			return nil
		case d.Name() == "testdata" || strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
			return fs.SkipDir // a module of its own
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// What the pure files may import: nothing that has a clock, a state or an
// outside. fmt and errors are for the decoder's errors.
var pureImports = []string{
	"cmp", "errors", "fmt", "math/bits", "slices", "strings", "unicode/utf8",
	"github.com/google/btree", "google.golang.org/protobuf/encoding/protowire", module + "/pb",
}

// TestPurity holds that the lock table is a function of the log: the pure files
// use nothing that is declared in an impure one, and nothing that two members
// could do differently.
func TestPurity(t *testing.T) {
	pure := map[string]bool{}
	for _, line := range readMap(t) {
		if strings.HasPrefix(line.what, "pure: ") {
			pure[line.file] = true
		}
	}
	for _, name := range []string{
		"command.go", "statemachine.go", "waitqueue.go", "requests.go",
		"deadlines.go", "query.go", "codec.go", "locktree.go", "holdtime.go",
		"snapshot.go", "snapshotload.go",
		"roster.go", "change.go",
	} {
		if !pure[name] {
			t.Errorf("%s is pure, and the map in doc.go does not say so", name)
		}
	}
	s := parse(t, ".", isProduct)
	for name, file := range s.files {
		if pure[name] {
			checkPureImports(t, s, file)
			checkPureNames(t, s, pure, file)
			checkPureSyntax(t, s, file)
		} else {
			checkPureMethods(t, s, pure, file)
		}
	}
}

func checkPureImports(t *testing.T, s *source, file *ast.File) {
	for _, i := range file.Imports {
		if !slices.Contains(pureImports, strings.Trim(i.Path.Value, `"`)) {
			t.Errorf("%s: a pure file imports %s", s.at(i), i.Path.Value)
		}
	}
}

// checkPureNames refuses names, fields and methods that an impure file declares.
func checkPureNames(t *testing.T, s *source, pure map[string]bool, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok {
			return true
		}
		object := s.info.Uses[id]
		if object == nil || !object.Pos().IsValid() {
			return true
		}
		if from := filepath.Base(s.fset.Position(object.Pos()).Filename); !pure[from] {
			t.Errorf("%s: a pure file uses %s of %s", s.at(id), id.Name, from)
		}
		return true
	})
}

// checkPureSyntax refuses goroutines, channels, floating-point numbers, which
// processors round differently, and the order of maps.
func checkPureSyntax(t *testing.T, s *source, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		what := ""
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "a goroutine"
		case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
			what = "a channel"
		case *ast.BasicLit:
			if n.Kind == token.FLOAT || n.Kind == token.IMAG {
				what = "a floating-point number"
			}
		case *ast.Ident:
			if slices.Contains([]string{"float32", "float64", "complex64", "complex128"}, n.Name) {
				what = "a floating-point number"
			}
		case *ast.RangeStmt:
			if over := s.info.TypeOf(n.X); over != nil {
				if _, isMap := over.Underlying().(*types.Map); isMap {
					what = "a walk over a map, whose order is random"
				}
			}
		}
		if what != "" {
			t.Errorf("%s: a pure file has %s", s.at(n), what)
		}
		return true
	})
}

// checkPureMethods refuses methods that an impure file adds to a pure type.
func checkPureMethods(t *testing.T, s *source, pure map[string]bool, file *ast.File) {
	for _, decl := range file.Decls {
		method, ok := decl.(*ast.FuncDecl)
		if !ok || method.Recv == nil {
			continue
		}
		typ := receiver(method)
		object := s.info.Uses[typ]
		if object == nil || !pure[filepath.Base(s.fset.Position(object.Pos()).Filename)] {
			continue
		}
		t.Errorf("%s: %s.%s is a method of a pure type in an impure file", s.at(method), typ.Name, method.Name.Name)
	}
}

// receiver is the name of a method's type.
func receiver(method *ast.FuncDecl) *ast.Ident {
	typ := method.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t
		default:
			return ast.NewIdent("?")
		}
	}
}
