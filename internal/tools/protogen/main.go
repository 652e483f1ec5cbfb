// Command protogen compiles the .proto files of the repository and writes the
// Go code of their messages and services beside them. It needs nothing but Go:
// the compiler is a library, and the two plugins are tools of this module.
//
//	protogen [-root DIR] [-out DIR] [FILE.proto …]
//
// Files are named relative to the root; without any, all of the root are
// taken. Run it in the directory of its own module, for `go tool` to find the
// plugins at their pinned versions.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	root := flag.String("root", ".", "directory that imports and file names are relative to")
	out := flag.String("out", "", "directory to write below (default: the root)")
	flag.Parse()
	if *out == "" {
		*out = *root
	}
	if err := run(*root, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(root, out string, names []string) error {
	if len(names) == 0 {
		found, err := protoFiles(root)
		if err != nil {
			return err
		}
		names = found
	}
	files, err := compile(root, names)
	if err != nil {
		return err
	}
	if err := generate("protoc-gen-go", files, out); err != nil {
		return err
	}
	// The second plugin writes nothing for a file without services.
	return generate("protoc-gen-go-grpc", files, out)
}

// protoFiles lists the .proto files below root in the order of their names. It
// leaves out what the go command ignores too.
func protoFiles(root string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_")
		if d.IsDir() && path != root && (hidden || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".proto" {
			return nil
		}
		name, err := filepath.Rel(root, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no .proto file below %s", root)
	}
	return names, err
}

// compile links the files and keeps their comments, which become those of the
// Go code.
func compile(root string, names []string) (linker.Files, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	return c.Compile(context.Background(), names...)
}

// generate hands the files to a plugin, as protoc would, and writes what comes
// back below out.
func generate(plugin string, files linker.Files, out string) error {
	req := &pluginpb.CodeGeneratorRequest{Parameter: proto.String("paths=source_relative")}
	seen := map[string]bool{}
	for _, f := range files {
		req.FileToGenerate = append(req.FileToGenerate, f.Path())
		req.ProtoFile = appendWithImports(req.ProtoFile, f, seen)
	}
	res, err := call(plugin, req)
	if err != nil {
		return fmt.Errorf("run %s: %w", plugin, err)
	}
	for _, f := range res.GetFile() {
		path := filepath.Join(out, filepath.FromSlash(f.GetName()))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// appendWithImports appends f behind everything that it imports, which is the
// order that plugins expect.
func appendWithImports(list []*descriptorpb.FileDescriptorProto, f protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[f.Path()] {
		return list
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		list = appendWithImports(list, f.Imports().Get(i).FileDescriptor, seen)
	}
	return append(list, protoutil.ProtoFromFileDescriptor(f))
}

// call runs one plugin: a request on its input, a response on its output.
func call(plugin string, req *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.Command("go", "tool", plugin)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	res := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(out.Bytes(), res); err != nil {
		return nil, err
	}
	if res.Error != nil {
		return nil, errors.New(res.GetError())
	}
	return res, nil
}
