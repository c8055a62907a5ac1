package main

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	readme   = "../../README.md"
	examples = "../../driver/example_test.go"
)

// TestReadmeProgramsAreTheExamples also builds them, and has the client talk to the server.
func TestReadmeProgramsAreTheExamples(t *testing.T) {
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	source, err := os.ReadFile(examples)
	require.NoError(t, err)

	port := freePort(t)
	dir := t.TempDir()
	for _, name := range []string{"Example_server", "Example_client", "Example_gameLoop"} {
		program := snippet(t, string(text), name)
		require.Equal(t, body(t, source, name), body(t, []byte(program), "main"), "README.md and %s", name)
		if name != "Example_gameLoop" {
			require.Less(t, strings.Count(program, "\n"), 40, "lines of %s", name)
		}
		file := filepath.Join(dir, name+".go")
		require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(program, "7777", port)), 0o600))
		out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), file).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}

	require.Equal(t, "server: move\nplayer: state\n", output(t, filepath.Join(dir, "Example_gameLoop")))

	var log bytes.Buffer
	server := exec.Command(filepath.Join(dir, "Example_server"))
	server.Stderr = &log
	require.NoError(t, server.Start())
	t.Cleanup(func() { _ = server.Process.Kill() })
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)

	require.Equal(t, fmt.Sprintf("\"hello, zone\" from 127.0.0.1:%s, error: <nil>\n", port),
		output(t, filepath.Join(dir, "Example_client")))
	require.NoError(t, server.Process.Signal(os.Interrupt))
	require.NoError(t, server.Wait(), "%s", &log)
	require.Contains(t, log.String(), "left:")
}

// snippet is the Go code after the comment that names the example.
func snippet(t *testing.T, markdown, example string) string {
	_, after, found := strings.Cut(markdown, "<!-- "+example+" -->\n```go\n")
	require.True(t, found, "README.md has no %s", example)
	code, _, found := strings.Cut(after, "```\n")
	require.True(t, found)
	return code
}

// body is a function's, as written, without the comment that says what it prints.
func body(t *testing.T, source []byte, name string) string {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.ParseComments)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Name.Name != name {
			continue
		}
		text := source[files.Position(f.Body.Lbrace).Offset+1 : files.Position(f.Body.Rbrace).Offset]
		code, _, _ := strings.Cut(string(text), "\t// Output:")
		return code
	}
	t.Fatalf("no function %s", name)
	return ""
}

func output(t *testing.T, program string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	return string(out)
}

// freePort is one that nobody has just now.
func freePort(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}
