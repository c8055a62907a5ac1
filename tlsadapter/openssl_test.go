package tlsadapter_test

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

// TestOpenSSLClientUpdatesKeys has the key updates of a peer that is not crypto/tls: s_client's K command sends one and
// requests ours.
func TestOpenSSLClientUpdatesKeys(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	served := make(chan error, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			served <- err
			return
		}
		nc.SetDeadline(time.Now().Add(30 * time.Second))
		s := tlsadapter.NewServer(serverConfig())
		served <- run(s, nc, func() {}, func(plain []byte) { s.Seal(plain) })
	}()

	cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", ln.Addr().String(), "-tls1_3")
	input := must(cmd.StdinPipe())
	output, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	require.NoError(t, cmd.Start())
	exited := make(chan error, 1)
	go func() {
		exited <- cmd.Wait()
		writer.Close()
	}()
	lines := bufio.NewScanner(output)
	expect := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("s_client ended without saying %q", text)
	}

	for range 3 {
		must(io.WriteString(input, "before\n"))
		expect("before")
		must(io.WriteString(input, "K\n"))
		expect("KEYUPDATE")
		must(io.WriteString(input, "after\n"))
		expect("after")
	}
	must(io.WriteString(input, "Q\n"))
	go io.Copy(io.Discard, output)
	require.NoError(t, <-exited)
	require.Equal(t, io.EOF, <-served, "close_notify")
}
