package raftlock_test

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxFunction is how many lines a function may have, signature and brace
// included.
const maxFunction = 70

// TestFunctionLength keeps functions readable; tests are not counted.
func TestFunctionLength(t *testing.T) {
	eachFile(t, isProduct, func(s *source, _ string, file *ast.File) {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; lines > maxFunction {
				t.Errorf("%s: %s has %d lines, at most %d are allowed", s.at(f), f.Name.Name, lines, maxFunction)
			}
		}
	})
}

// TestNoSleep holds that everything waits for something. Inside a bubble of
// testing/synctest a sleep is a wait for all others, and costs nothing: there it
// is allowed, in functions that are called from nowhere else too.
func TestNoSleep(t *testing.T) {
	for _, dir := range goDirs(t) {
		s := parse(t, dir, func(string) bool { return true })
		b := findBubbles(s)
		s.inspectFuncs(func(f *ast.FuncDecl, inBubble bool, n ast.Node) {
			call, ok := n.(*ast.CallExpr)
			if ok && qualified(s, call.Fun) == "time.Sleep" && !inBubble && !b.only[s.info.Defs[f.Name]] {
				t.Errorf("%s: sleeps; wait for what should happen instead", s.at(call))
			}
		}, b)
	}
}

// bubbles are the functions of a package that run tests in bubbles of
// testing/synctest, and those that run in bubbles only.
type bubbles struct {
	makers map[types.Object]bool // what they are called with runs in a bubble
	only   map[types.Object]bool
}

// makes reports whether a call makes a bubble for its arguments.
func (b *bubbles) makes(s *source, call *ast.CallExpr) bool {
	id, ok := call.Fun.(*ast.Ident)
	return qualified(s, call.Fun) == "testing/synctest.Test" || ok && b.makers[s.info.Uses[id]]
}

func findBubbles(s *source) *bubbles {
	b := &bubbles{makers: map[types.Object]bool{}, only: map[types.Object]bool{}}
	for known := -1; known < len(b.makers); { // a maker may call another one
		known = len(b.makers)
		s.inspectFuncs(func(f *ast.FuncDecl, _ bool, n ast.Node) {
			if call, ok := n.(*ast.CallExpr); ok && b.makes(s, call) {
				b.makers[s.info.Defs[f.Name]] = true
			}
		}, b)
	}
	type use struct {
		by       types.Object
		inBubble bool
	}
	uses := map[types.Object][]use{}
	s.inspectFuncs(func(f *ast.FuncDecl, inBubble bool, n ast.Node) {
		if id, ok := n.(*ast.Ident); ok {
			if used, ok := s.info.Uses[id].(*types.Func); ok {
				uses[used] = append(uses[used], use{s.info.Defs[f.Name], inBubble})
				b.only[used] = true // until it is found to be used elsewhere
			}
		}
	}, b)
	for changed := true; changed; {
		changed = false
		for used := range b.only {
			elsewhere := slices.ContainsFunc(uses[used], func(u use) bool { return !u.inBubble && !b.only[u.by] })
			if elsewhere {
				delete(b.only, used)
				changed = true
			}
		}
	}
	return b
}

// inspectFuncs visits all that is in the package's functions, and says what of
// it lies in the arguments of a call that makes a bubble.
func (s *source) inspectFuncs(visit func(f *ast.FuncDecl, inBubble bool, n ast.Node), b *bubbles) {
	for _, file := range s.files {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			var ends []token.Pos // of the bubbles that the walk is in
			ast.Inspect(f, func(n ast.Node) bool {
				if n == nil {
					return true
				}
				for len(ends) > 0 && n.Pos() >= ends[len(ends)-1] {
					ends = ends[:len(ends)-1]
				}
				visit(f, len(ends) > 0, n)
				if call, ok := n.(*ast.CallExpr); ok && b.makes(s, call) {
					ends = append(ends, call.End())
				}
				return true
			})
		}
	}
}

// What a library must not touch: it belongs to the process. A trailing dot
// means everything in that package.
var processes = []string{
	"os.Exit", "os.Setenv", "os.Unsetenv", "os.Clearenv", "os.Chdir", "os.Stdin", "os.Stdout", "os.Stderr",
	"fmt.Print", "fmt.Printf", "fmt.Println", "log.", "log/slog.SetDefault", "log/slog.Default", "flag.", "os/signal.",
	"net/http.Handle", "net/http.HandleFunc", "net/http.DefaultServeMux", "expvar.", "syscall.Umask",
	"runtime.GOMAXPROCS", "runtime/debug.SetGCPercent", "runtime/debug.SetMemoryLimit", "runtime/debug.SetMaxStack",
	"github.com/prometheus/client_golang/prometheus.DefaultRegisterer", "github.com/prometheus/client_golang/prometheus.DefaultGatherer",
	"github.com/prometheus/client_golang/prometheus.Register", "github.com/prometheus/client_golang/prometheus.MustRegister",
	"github.com/prometheus/client_golang/prometheus.Unregister", "github.com/prometheus/client_golang/prometheus/promauto.",
	"github.com/prometheus/client_golang/prometheus/promhttp.Handler", "google.golang.org/grpc/grpclog.",
	"google.golang.org/grpc/encoding.RegisterCodec", "google.golang.org/grpc/encoding.RegisterCodecV2",
	"google.golang.org/grpc/resolver.Register", "google.golang.org/grpc/balancer.Register",
	"go.uber.org/zap.ReplaceGlobals", "go.uber.org/zap.RedirectStdLog",
}

// TestNoSideEffects holds a guest's manners: whoever links the library, or opens
// a member, keeps his process to himself. Programs own theirs.
func TestNoSideEffects(t *testing.T) {
	eachFile(t, isProduct, func(s *source, dir string, file *ast.File) {
		if isProgram(dir) {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: an init function", s.at(n))
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") && s.info.Uses[id] == types.Universe.Lookup(id.Name) {
					t.Errorf("%s: %s writes to standard error", s.at(n), id.Name)
				}
			case *ast.SelectorExpr:
				name := qualified(s, n)
				for _, bad := range processes {
					if name == bad || strings.HasSuffix(bad, ".") && strings.HasPrefix(name, bad) {
						t.Errorf("%s: uses %s, which is the process's", s.at(n), name)
					}
				}
			}
			return true
		})
	})
}

// Variables of a package that are not constants in all but name, and why they
// may stay.
var knownVariables = map[string]string{
	"internal/walstore.setSegmentSize":       "sets, once, what only the WAL package's own variable can say; documented there and in embed",
	"internal/walstore.wal.SegmentSizeBytes": "the same",
	"internal/peerwire.errClosed":            "an error; its address goes into an atomic pointer and is never written through",
	"internal/peerwire.serviceDesc":          "grpc takes a pointer and only reads",
	"internal/peerwire.framesDesc":           "the same",
}

// TestNoVariables holds that packages keep no state: what is declared at their
// top is never written, nor made to be.
func TestNoVariables(t *testing.T) {
	for _, dir := range goDirs(t) {
		s := parse(t, dir, isProduct)
		known := func(name string) bool {
			return knownVariables[filepath.ToSlash(filepath.Join(dir, name))] != "" || knownVariables[dir+"."+name] != ""
		}
		for _, file := range s.files {
			for _, decl := range file.Decls {
				checkStateful(t, s, known, decl)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, target := range written(n) {
					if name := packageVariable(s, target); name != "" && !known(name) {
						t.Errorf("%s: the package's variable %s is written, or can be", s.at(n), name)
					}
				}
				return true
			})
		}
	}
}

// checkStateful refuses variables of types that exist to be changed.
func checkStateful(t *testing.T, s *source, known func(string) bool, decl ast.Decl) {
	vars, ok := decl.(*ast.GenDecl)
	if !ok || vars.Tok != token.VAR {
		return
	}
	for _, spec := range vars.Specs {
		ast.Inspect(spec, func(n ast.Node) bool {
			if _, isFunc := n.(*ast.FuncLit); isFunc {
				return false
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			name := spec.(*ast.ValueSpec).Names[0].Name
			if from := qualified(s, sel); (strings.HasPrefix(from, "sync.") || strings.HasPrefix(from, "sync/atomic.")) && !known(name) {
				t.Errorf("%s: the package's variable %s is a %s", s.at(spec), name, from)
			}
			return true
		})
	}
}

// written lists what a node writes to, or takes the address of.
func written(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			return []ast.Expr{n.Key, n.Value}
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") {
			return n.Args[:1]
		}
	}
	return nil
}

// packageVariable is the package-level variable, of this package or another,
// that an expression is or is a part of; "" when it is none.
func packageVariable(s *source, e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			v, ok := s.info.Uses[x].(*types.Var)
			if ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
				return x.Name
			}
			return ""
		case *ast.SelectorExpr:
			if name := qualified(s, x); name != "" {
				return x.X.(*ast.Ident).Name + "." + x.Sel.Name
			}
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return ""
		}
	}
}

// Where the root package starts goroutines: the function, and the row of Node's
// table that tells of them. An empty row is for what runs a line and ends.
var starters = map[string]string{
	"Open":     "main, loop",
	"live":     "appender",
	"beside":   "snapshot",
	"serve":    "outbox",
	"withdraw": "withdrawal",
	"exchange": "",
	"welcome":  "",
	"part":     "",

	"receiveFrames":   "",
	"receiveSnapshot": "",
	"transferFile":    "",
}

// TestGoroutines holds the table in Node's comment: nothing else in the package
// starts a goroutine.
func TestGoroutines(t *testing.T) {
	s := parse(t, ".", isProduct)
	started := map[string]bool{}
	for _, file := range s.files {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if !starts(s, n) {
					return true
				}
				started[f.Name.Name] = true
				row, known := starters[f.Name.Name]
				if !known {
					t.Errorf("%s: %s starts a goroutine, which Node's table and this test do not know", s.at(n), f.Name.Name)
				} else if row != "" && !strings.Contains(typeDoc(s, "Node"), "\t"+row+" ") {
					t.Errorf("Node's table has no row %q, for what %s starts", row, f.Name.Name)
				}
				return true
			})
		}
	}
	for name := range starters {
		if !started[name] {
			t.Errorf("%s starts no goroutine any more: take it out of starters", name)
		}
	}
}

// starts reports whether a node starts a goroutine: a go statement, a WaitGroup's
// Go, an AfterFunc.
func starts(s *source, n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		return sel.Sel.Name == "Go" || sel.Sel.Name == "AfterFunc"
	}
	return false
}

// typeDoc is the comment of a type.
func typeDoc(s *source, name string) string {
	for _, file := range s.files {
		for _, decl := range file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				continue
			}
			for _, spec := range d.Specs {
				if spec.(*ast.TypeSpec).Name.Name == name {
					return d.Doc.Text()
				}
			}
		}
	}
	return ""
}

// qualified is importpath.Name of a name from another package, otherwise "".
func qualified(s *source, e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	p, ok := s.info.Uses[id].(*types.PkgName)
	if !ok {
		return ""
	}
	return p.Imported().Path() + "." + sel.Sel.Name
}

// isProgram reports whether a directory is a program, which owns its process.
func isProgram(dir string) bool {
	first, _, _ := strings.Cut(filepath.ToSlash(dir), "/")
	return first == "cmd" || first == "examples"
}

// eachFile visits the module's files that are written by hand and that keep
// admits.
func eachFile(t *testing.T, keep func(name string) bool, visit func(s *source, dir string, file *ast.File)) {
	t.Helper()
	for _, dir := range goDirs(t) {
		s := parse(t, dir, keep)
		for _, file := range s.files {
			visit(s, dir, file)
		}
	}
}
