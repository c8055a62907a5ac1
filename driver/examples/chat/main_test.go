//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const (
	onGoroutines = `	transport "gridstream/driver/stdnet"`
	onLoops      = `	transport "gridstream/driver"`
	readme       = "../../../README.md"
	patience     = time.Minute
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // the goroutines that importing gnet starts
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// TestOneLineChangesTheTransport builds the program on either, and hears the same of both.
func TestOneLineChangesTheTransport(t *testing.T) {
	path, err := filepath.Abs("main.go")
	require.NoError(t, err)
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	changed := strings.Replace(string(source), onGoroutines+"\n", onLoops+"\n", 1)
	require.Equal(t, 1, differences(string(source), changed))

	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	require.Contains(t, string(text), "```diff\n-"+onGoroutines+"\n+"+onLoops+"\n```", "README.md shows the line")

	dir := t.TempDir()
	stdnet, loops := filepath.Join(dir, "stdnet"), filepath.Join(dir, "loops")
	build(t, stdnet)
	overlay, replacement := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(replacement, []byte(changed), 0o600))
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: replacement}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, replace, 0o600))
	build(t, loops, "-overlay", overlay)

	want := []string{
		"ada hears: your name?",
		"ada hears: welcome, ada; 0 are here",
		"ada hears: ada joined",
		"server: listening on port N",
		"server: ada joined",
		"bob hears: your name?",
		"bob hears: welcome, bob; 1 are here",
		"bob hears: bob joined",
		"ada hears: bob joined",
		"server: bob joined",
		"ada hears: bob: hi, ada",
		"bob hears: bob: hi, ada",
		"eve hears: your name?",
		"eve hears: too long a name",
		"eve hears: EOF",
		"server: somebody left: no name",
		"ada hears: bob left",
		"server: bob left: driver: the peer closed the connection",
		"server: shutting down",
		"ada hears: good night",
		"ada hears: EOF",
		"server: ada left: driver: the driver was shut down",
		"server: EOF",
	}
	require.Equal(t, want, transcript(t, stdnet))
	require.Equal(t, want, transcript(t, loops))
}

// differences counts the lines that are not the same.
func differences(a, b string) (n int) {
	linesA, linesB := strings.Split(a, "\n"), strings.Split(b, "\n")
	if len(linesA) != len(linesB) {
		return len(linesA) + len(linesB)
	}
	for i := range linesA {
		if linesA[i] != linesB[i] {
			n++
		}
	}
	return n
}

func build(t *testing.T, output string, flags ...string) {
	t.Helper()
	args := append([]string{"build", "-o", output}, flags...)
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// session is what everybody says and hears.
type session struct {
	t     *testing.T
	addr  string
	heard []string
}

// transcript runs the program, has players talk, and terminates it.
func transcript(t *testing.T, program string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server := exec.CommandContext(ctx, program, "-listen", "127.0.0.1:0")
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	log := bufio.NewReader(out)
	first, err := log.ReadString('\n')
	require.NoError(t, err)
	var port int
	_, err = fmt.Sscanf(first, "listening on port %d\n", &port)
	require.NoError(t, err, first)
	s := &session{t: t, addr: fmt.Sprint("127.0.0.1:", port)}
	logs := func() {
		t.Helper()
		line, err := log.ReadString('\n')
		if err == io.EOF {
			line = "EOF"
		}
		s.heard = append(s.heard, "server: "+strings.TrimSpace(line))
	}

	ada := s.player("ada")
	ada.hears(1)
	ada.says("ada")
	ada.hears(2)
	s.heard = append(s.heard, "server: "+strings.TrimSpace(strings.Replace(first, fmt.Sprint(port), "N", 1)))
	logs()
	bob := s.player("bob")
	bob.hears(1)
	bob.says("bob")
	bob.hears(2)
	ada.hears(1)
	logs()
	bob.says("hi, ada")
	ada.hears(1)
	bob.hears(1)
	eve := s.player("eve")
	eve.hears(1)
	eve.says(strings.Repeat("e", longestName+1))
	eve.hears(2)
	eve.leaves()
	logs()
	bob.leaves()
	ada.hears(1)
	logs()
	require.NoError(t, server.Process.Signal(syscall.SIGTERM))
	logs()
	ada.hears(2)
	ada.leaves()
	logs()
	logs()
	require.NoError(t, server.Wait())
	return s.heard
}

// player is a client that knows nothing but the wire format.
type player struct {
	*session
	name string
	nc   net.Conn
}

func (s *session) player(name string) *player {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { nc.Close() })
	require.NoError(s.t, nc.SetDeadline(time.Now().Add(patience)))
	return &player{s, name, nc}
}

func (p *player) says(text string) {
	p.t.Helper()
	_, err := p.nc.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...))
	require.NoError(p.t, err)
}

// hears takes count packets, of which the end is one.
func (p *player) hears(count int) {
	p.t.Helper()
	for range count {
		var head [2]byte
		text := []byte("EOF")
		_, err := io.ReadFull(p.nc, head[:])
		if err != io.EOF {
			require.NoError(p.t, err)
			text = make([]byte, binary.BigEndian.Uint16(head[:]))
			_, err = io.ReadFull(p.nc, text)
			require.NoError(p.t, err)
		}
		p.heard = append(p.heard, fmt.Sprintf("%s hears: %s", p.name, text))
	}
}

func (p *player) leaves() {
	p.t.Helper()
	require.NoError(p.t, p.nc.Close())
}
