//go:build unix

package driver_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const activatedTest = "GRIDSTREAM_TEST_ACTIVATED"

// TestSocketActivation starts the example as systemd does: with a listener as descriptor 3. A client that connects before waits.
func TestSocketActivation(t *testing.T) {
	if os.Getenv(activatedTest) != "" {
		ExampleDriver_StartListenOn_systemd()
		return
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer f.Close()
	early, err := net.Dial("tcp4", ln.Addr().String())
	require.NoError(t, err)
	defer early.Close()

	var log bytes.Buffer
	// exec keeps the process, and so LISTEN_PID.
	server := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestSocketActivation$'`, os.Args[0])
	server.Env = append(os.Environ(), activatedTest+"=1", "LISTEN_FDS=1")
	server.ExtraFiles = []*os.File{f}
	server.Stdout, server.Stderr = &log, &log
	require.NoError(t, server.Start())

	late, err := net.Dial("tcp4", ln.Addr().String())
	require.NoError(t, err)
	defer late.Close()
	for _, nc := range []net.Conn{early, late} {
		require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
		fmt.Fprint(nc, "\x00\x05hello")
		require.Equal(t, "hello", hear(nc))
	}
	require.NoError(t, server.Process.Signal(syscall.SIGTERM))
	for _, nc := range []net.Conn{early, late} {
		_, err := nc.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, nc.Close())
	}
	require.NoError(t, server.Wait(), "%s", &log)
}
