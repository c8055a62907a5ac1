package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// asDemo makes the test's binary the demo: the players' process is the same binary again.
const asDemo = "GRIDSTREAM_TEST_AS_DEMO"

func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		os.Exit(realMain(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Setenv(asDemo, "1")
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// rowsOf calls then with each row.
type rowsOf struct{ then func(row) }

func (v rowsOf) show(r row) { v.then(r) }
func (v rowsOf) end()       {}

func TestEverybodyPlaysAndNothingIsLost(t *testing.T) {
	dials := []string{dialNet}
	if defaultDial() == dialDriver {
		dials = append(dials, dialDriver)
	}
	for _, dial := range dials {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("dial=%s/tls=%v", dial, secure), func(t *testing.T) {
				const players, seconds = 50, 2
				var rows []row
				var complaints bytes.Buffer
				s, err := run(t.Context(), options{players: players, length: seconds * time.Second, dial: dial, secure: secure},
					rowsOf{func(r row) { rows = append(rows, r) }}, &complaints)
				require.NoError(t, err)
				require.Empty(t, complaints.String())

				require.Empty(t, s.faults())
				require.False(t, s.interrupted)
				require.Equal(t, players, s.players.Joined)
				require.GreaterOrEqual(t, s.players.Played, seconds*time.Second)
				require.Positive(t, s.players.MovesSent)
				require.LessOrEqual(t, float64(s.players.MovesSent), players*moveRate*(s.players.Played.Seconds()+1))
				require.Positive(t, s.statesSent)
				require.Positive(t, s.players.Whole.Count)
				require.Positive(t, s.players.Whole.P50)
				require.GreaterOrEqual(t, s.players.Whole.P99, s.players.Whole.P50)
				require.Equal(t, uint64(players), s.server.established)
				require.Positive(t, s.rates.packetsIn)
				require.Positive(t, s.rates.packetsOut)
				for _, r := range rows {
					require.LessOrEqual(t, r.connections, players)
					require.LessOrEqual(t, r.established, uint64(players))
				}

				var text strings.Builder
				s.print(&text)
				require.Regexp(t, `50 players in 1 zone played for \d+\.\d s: nothing lost`, text.String())
			})
		}
	}
}

func TestInterruptEndsItCleanly(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			demo := exec.Command(os.Args[0], "-players", "50", "-seconds", "600")
			var complaints bytes.Buffer
			demo.Stderr = &complaints
			stdout, err := demo.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, demo.Start())
			t.Cleanup(func() { _ = demo.Process.Kill() })

			var text []byte
			buf := make([]byte, 4096)
			for interrupted := false; ; {
				n, err := stdout.Read(buf)
				text = append(text, buf[:n]...)
				if err != nil {
					break
				}
				if !interrupted && bytes.Contains(text, []byte("playing")) {
					interrupted = true
					require.NoError(t, demo.Process.Signal(signal))
				}
			}
			require.NoError(t, demo.Wait(), complaints.String())
			require.Empty(t, complaints.String())
			require.Contains(t, string(text), "interrupted, nothing lost")
		})
	}
}

func TestInterruptWhileConnecting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := run(ctx, options{players: 50, length: time.Minute, dial: dialNet}, rowsOf{func(row) {}}, os.Stderr)
	require.NoError(t, err)
	require.True(t, s.interrupted)
	require.Empty(t, s.faults())
	var text strings.Builder
	s.print(&text)
	require.Contains(t, text.String(), "interrupted, nothing lost") // whether or not somebody had moved by then
}

func TestPlayersEndWithTheirParent(t *testing.T) {
	for name, line := range map[string]string{
		"before the order": "",
		"while connecting": `{"Port":1,"Players":1,"Length":60000000000,"Dial":"net"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			players := exec.CommandContext(t.Context(), os.Args[0], rolePlayers)
			players.Stdin = strings.NewReader(line)
			require.NoError(t, ignoreExit(players.Run()))
			require.True(t, players.ProcessState.Exited())
		})
	}
}

func ignoreExit(err error) error {
	if _, exited := err.(*exec.ExitError); exited {
		return nil
	}
	return err
}

func TestDescriptorsFor(t *testing.T) {
	require.NoError(t, descriptorsFor(9000, 20000))
	require.NoError(t, descriptorsFor(1000-spareDescriptors, 1000))
	err := descriptorsFor(30000, 20000)
	require.ErrorContains(t, err, "ulimit -n 30576")
	require.ErrorContains(t, err, "-players 19424")
	require.NotContains(t, descriptorsFor(1000, 256).Error(), "fewer")
}

func TestPlayerAddress(t *testing.T) {
	for n, want := range map[int]string{
		0:              "127.0.0.1:7777",
		254:            "127.0.0.255:7777",
		255:            "127.0.1.0:7777",
		maxPlayers - 1: "127.255.255.254:7777",
	} {
		require.Equal(t, netip.MustParseAddrPort(want), playerAddress(n, 7777))
		require.Equal(t, n, playerNumber(playerAddress(n, 7777)))
	}
}

func TestWrongUse(t *testing.T) {
	for name, args := range map[string][]string{
		"no players":     {"-players", "0"},
		"no time":        {"-seconds", "-1"},
		"unknown dialer": {"-dial", "carrier pigeon"},
		"argument":       {"1000"},
		"unknown flag":   {"-player", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			var complaints bytes.Buffer
			require.Equal(t, 2, realMain(args, nil, nil, &complaints))
			require.NotEmpty(t, complaints.String())
		})
	}
}
