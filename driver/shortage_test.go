//go:build linux || darwin

package driver_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// Out of descriptors, in a process of its own with a low limit: established connections keep talking, nothing
// spins, and accepting goes on afterwards.
func TestOutOfDescriptors(t *testing.T) {
	const role = "GRIDSTREAM_SHORTAGE"
	if os.Getenv(role) != "" {
		outOfDescriptors(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), role+"=server")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "accepted again", string(out))
}

func outOfDescriptors(t *testing.T) {
	server, events := newDriver(t, driver.Config{
		MaxConnections: 10000,
		OnPacket:       func(c driver.Conn, p []byte) { _ = c.Send(p) },
	})
	ping := func(nc net.Conn) {
		t.Helper()
		require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
		_, err := nc.Write([]byte("\x00\x04ping"))
		require.NoError(t, err)
		answer := make([]byte, 6)
		_, err = io.ReadFull(nc, answer)
		require.NoError(t, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	established, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer established.Close()
	accepted, err := ln.Accept()
	require.NoError(t, err)
	// Adopt has let go of the descriptor that it was given when it returns: no hole is left below the others.
	_, err = server.Adopt(accepted)
	require.NoError(t, err)
	require.NoError(t, server.StartListenOn(ln))
	ping(established)

	const waiting = 20
	var clients []net.Conn
	limit := setDescriptorLimit(t, 200)
	var files []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			break
		}
		files = append(files, f)
	}
	require.Greater(t, len(files), waiting)
	for range waiting { // each client takes one descriptor, and leaves none to accept with
		require.NoError(t, files[len(files)-1].Close())
		files = files[:len(files)-1]
		nc, err := net.Dial("tcp", addrOf(server).String())
		if err != nil { // the server was quicker
			break
		}
		clients = append(clients, nc)
	}
	defer func() {
		for _, nc := range clients {
			nc.Close()
		}
	}()

	eventually(t, "a failed accept", func() bool { return server.Stats().AcceptErrors > 0 })
	for range 100 {
		ping(established)
	}
	before, errorsBefore := cpuTime(t), server.Stats().AcceptErrors
	window := time.NewTimer(500 * time.Millisecond) // the time in which the use of the processor is measured
	<-window.C
	require.Less(t, cpuTime(t)-before, 100*time.Millisecond, "it spins")
	require.Less(t, server.Stats().AcceptErrors-errorsBefore, uint64(50), "it spins")
	ping(established)

	for _, f := range files {
		f.Close()
	}
	eventually(t, "the clients in the backlog", func() bool { e, _ := events.counts(); return e == 1+len(clients) })
	for _, nc := range clients {
		ping(nc)
	}
	ping(established)
	setDescriptorLimit(t, limit)
	fmt.Println("accepted again")
}

func setDescriptorLimit(t *testing.T, n uint64) (before uint64) {
	var r syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r))
	before = uint64(r.Cur)
	r.Cur = n
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r))
	return before
}

func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
