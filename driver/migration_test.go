package driver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// TestMigrationDocument: the Go code of docs/migration.md is that of the files that it names, which are compiled and tested.
func TestMigrationDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/migration.md")
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```")
	shown := 0
	for i := 1; i < len(blocks); i += 2 {
		block, isGo := strings.CutPrefix(blocks[i], "go\n")
		if !isGo {
			continue
		}
		before := strings.TrimSpace(blocks[i-1])
		name := strings.TrimSuffix(before[strings.LastIndex(before, "<!-- ")+len("<!-- "):], " -->")
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Contains(t, string(source), "\n"+block, name)
		shown++
	}
	require.Greater(t, shown, 5)
}

// TestMigratedZoneIsTheSame: raw players hear the same in the zone before, after, and on the way.
func TestMigratedZoneIsTheSame(t *testing.T) {
	for _, test := range []struct {
		name  string
		begin func(t *testing.T, ln net.Listener) (port int)
	}{
		{"net", func(t *testing.T, ln net.Listener) int {
			zone := &netZone{players: make(map[*netPlayer]struct{})}
			serving(t, ln, func() error { return zone.serve(ln) })
			return portOf(ln)
		}},
		{"Adopt", func(t *testing.T, ln net.Listener) int {
			d := zoneDriver(t)
			require.NoError(t, d.Initialize(driver.Bind{}))
			serving(t, ln, func() error { return acceptInto(d, ln) })
			return portOf(ln)
		}},
		{"StartListenOn", func(t *testing.T, ln net.Listener) int {
			require.NoError(t, keepListener(zoneDriver(t), ln))
			return portOf(ln)
		}},
		{"StartListen", func(t *testing.T, ln net.Listener) int {
			require.NoError(t, ln.Close())
			d := zoneDriver(t)
			require.NoError(t, listen(d, 0))
			return int(d.Port())
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			addr := fmt.Sprint("127.0.0.1:", test.begin(t, ln))
			dial := func() net.Conn {
				nc, err := net.Dial("tcp4", addr)
				require.NoError(t, err)
				t.Cleanup(func() { nc.Close() })
				require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
				return nc
			}
			say := func(nc net.Conn, text string, to ...net.Conn) {
				fmt.Fprintf(nc, "\x00%c%s", len(text), text)
				for _, other := range to {
					packet, err := readPacket(other)
					require.NoError(t, err)
					require.Equal(t, text, string(packet))
				}
			}
			ada := dial()
			say(ada, "I am here", ada)
			bob := dial()
			say(bob, "so am I", bob, ada)
			say(ada, "bye", ada, bob)
			require.NoError(t, ada.Close())
			say(bob, "alone", bob)
			require.NoError(t, bob.Close())
		})
	}
}

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

func zoneDriver(t *testing.T) driver.Driver {
	d, err := newZone()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// serving runs serve until the listener is closed.
func serving(t *testing.T, ln net.Listener, serve func() error) {
	done := make(chan error, 1)
	go func() { done <- serve() }()
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		require.ErrorIs(t, <-done, net.ErrClosed)
	})
}

func TestMigrationWorkers(t *testing.T) {
	work := make(chan request, 1)
	d, err := driver.New(driver.Config{OnPacket: saving(work)})
	require.NoError(t, err)
	require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	require.NoError(t, d.StartListen(0))
	stored := make(chan string, 1)
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		save(context.Background(), work, func(b []byte) error { stored <- string(b); return nil })
	}()
	nc, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", d.Port()))
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(nc, "\x00\x05state")
	require.NoError(t, err)
	packet, err := readPacket(nc)
	require.NoError(t, err)
	require.Equal(t, "saved", string(packet))
	require.Equal(t, "state", <-stored)
	require.NoError(t, d.Close())
	close(work)
	<-saved
}

func TestMigrationGameLoop(t *testing.T) {
	d, err := driver.New(driver.Config{Dispatch: driver.DispatchOnUpdate})
	require.NoError(t, err)
	require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	require.NoError(t, d.StartListen(0))
	defer d.Close()
	nc, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", d.Port()))
	require.NoError(t, err)
	defer nc.Close()
	_, err = io.WriteString(nc, "\x00\x01a\x00\x01b")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got strings.Builder
	for got.String() != "ab" {
		require.NoError(t, d.WaitForData(ctx))
		frameOf(d, make([]byte, d.MaxSendSize()), func(packet []byte) { got.Write(packet) })
	}
}
