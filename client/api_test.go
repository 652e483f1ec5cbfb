package client

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testdata/published.txt declares the API that users of this package were
// promised, without its comments. It does not change; what this package has
// beyond it is listed here.

// added are the names that the published API lacks.
var added = []string{
	"Client",
	"Dial",
	"Do",
	"ErrLockLost",
	"ErrOutcomeUnknown",
	"Held",
	"Held.Context",
	"Held.Done",
	"Held.Err",
	"Held.Lock",
	"Held.Release",
	"Held.Token",
	"Hold",
	"HoldOption",
	"Locks",
	"NewClientID",
	"NoWait",
	"WithClientID",
	"WithMetadata",
	"WithPriority",
	"WithTTL",
	"WithWait",
}

// addedFields stand behind the published ones of their structs.
var addedFields = map[string][]string{
	"AcquireRequest":    {"Attempt int32"},
	"CancelWaitRequest": {"RequestID string"},
	"GetLocksRequest":   {"StartAfter string"},
	"Config":            {"TLS *tls.Config", "DialOptions []grpc.DialOption"},
}

func TestExportedNamesAreTheIntendedOnes(t *testing.T) {
	published, got := publishedAPI(t), packageAPI(t)
	want := map[string]bool{}
	for name := range published {
		want[name] = true
	}
	for _, name := range added {
		want[name] = true
	}
	for name := range got {
		if !want[name] {
			t.Errorf("%s is exported, but neither published nor listed as added", name)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestPublishedDeclarationsAreKept(t *testing.T) {
	got := packageAPI(t)
	for name, want := range publishedAPI(t) {
		have, ok := got[name]
		if !ok {
			continue // the other test reports it
		}
		if want.kind == "struct" {
			want.parts = append(want.parts, addedFields[name]...)
		}
		if have.kind != want.kind || !slices.Equal(have.parts, want.parts) {
			t.Errorf("%s\n got %s\nwant %s", name, have, want)
		}
	}
}

// A decl is one declaration with all that a user's program can depend on: its
// kind and, for structs, the fields in order; for interfaces, the methods by
// name; for functions, the types of parameters and results; for anything else,
// its text.
type decl struct {
	kind  string
	parts []string
}

func (d decl) String() string { return d.kind + " {" + strings.Join(d.parts, "; ") + "}" }

func publishedAPI(t *testing.T) map[string]decl {
	t.Helper()
	src, err := os.ReadFile("testdata/published.txt")
	if err != nil {
		t.Fatal(err)
	}
	return parseAPI(t, "published.go", src)
}

func packageAPI(t *testing.T) map[string]decl {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]decl{}
	for _, path := range paths {
		if !strings.HasSuffix(path, "_test.go") {
			maps.Copy(all, parseAPI(t, path, nil))
		}
	}
	return all
}

func parseAPI(t *testing.T, path string, src []byte) map[string]decl {
	t.Helper()
	var in any
	if src != nil {
		in = src
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, in, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	api := map[string]decl{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			addFunc(api, d)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				addSpec(api, d.Tok, s)
			}
		}
	}
	maps.DeleteFunc(api, func(name string, _ decl) bool {
		recv, method, _ := strings.Cut(name, ".")
		return !token.IsExported(recv) || method != "" && !token.IsExported(method)
	})
	return api
}

func addFunc(api map[string]decl, f *ast.FuncDecl) {
	name, kind := f.Name.Name, "func"
	if f.Recv != nil {
		recv := types.ExprString(f.Recv.List[0].Type)
		name = strings.TrimPrefix(recv, "*") + "." + name
		kind = "method of " + recv
	}
	api[name] = decl{kind, []string{signature(f.Type)}}
}

func addSpec(api map[string]decl, tok token.Token, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for i, n := range s.Names {
			d := decl{kind: tok.String()}
			if i < len(s.Values) {
				d.parts = []string{types.ExprString(s.Values[i])}
			}
			api[n.Name] = d
		}
	case *ast.TypeSpec:
		api[s.Name.Name] = typeDecl(s.Type)
	}
}

func typeDecl(e ast.Expr) decl {
	switch x := e.(type) {
	case *ast.StructType:
		var fields []string
		for _, f := range x.Fields.List {
			for _, n := range f.Names {
				if n.IsExported() {
					fields = append(fields, n.Name+" "+types.ExprString(f.Type))
				}
			}
		}
		return decl{"struct", fields}
	case *ast.InterfaceType:
		var methods []string
		for _, m := range x.Methods.List {
			if f, ok := m.Type.(*ast.FuncType); ok {
				methods = append(methods, m.Names[0].Name+signature(f))
			} else {
				methods = append(methods, types.ExprString(m.Type))
			}
		}
		slices.Sort(methods)
		return decl{"interface", methods}
	case *ast.FuncType:
		return decl{"func type", []string{signature(x)}}
	default:
		return decl{"type", []string{types.ExprString(e)}}
	}
}

// signature is the types of parameters and results, without the names that
// nobody's program depends on.
func signature(f *ast.FuncType) string {
	return fmt.Sprintf("(%s) (%s)", typeList(f.Params), typeList(f.Results))
}

func typeList(fields *ast.FieldList) string {
	if fields == nil {
		return ""
	}
	var out []string
	for _, f := range fields.List {
		text := types.ExprString(f.Type)
		if ft, ok := f.Type.(*ast.FuncType); ok {
			text = "func" + signature(ft)
		}
		for range max(len(f.Names), 1) {
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}
