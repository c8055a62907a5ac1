package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The clients run in a process of their own, so that what the server costs is what is measured: this test binary, started again
// with roleVar set.
const roleVar = "GRIDSTREAM_BENCH_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "":
		goleak.VerifyTestMain(m,
			goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
			goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
	case "idle":
		exitOn(idleClients(os.Getenv("ADDR"), atoi(os.Getenv("CONNS"))))
	default:
		exitOn(fmt.Errorf("unknown role %q", os.Getenv(roleVar)))
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	exitUnless(err)
	return n
}

func exitUnless(err error) {
	if err != nil {
		exitOn(err)
	}
}

// idleClients opens n connections, has one packet echoed on each, says so and keeps them until its stdin ends.
func idleClients(addr string, n int) error {
	packet := binary.BigEndian.AppendUint16(nil, 4)
	packet = append(packet, "ping"...)
	conns := make([]net.Conn, 0, n)
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		conns = append(conns, nc)
		if _, err := nc.Write(packet); err != nil {
			return err
		}
		if _, err := io.ReadFull(nc, make([]byte, len(packet))); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	for _, nc := range conns {
		nc.Close()
	}
	return err
}

// startIdleClients is idleClients in a process of its own; stop ends it.
func startIdleClients(tb testing.TB, addr string, n int) (stop func()) {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"=idle", "ADDR="+addr, fmt.Sprintf("CONNS=%d", n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(tb, err)
	out, err := cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(tb, err)
	require.Equal(tb, "ready\n", line)
	return func() {
		in.Close()
		require.NoError(tb, cmd.Wait())
	}
}
