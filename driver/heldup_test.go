//go:build unix

package driver_test

import (
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// TestHeldUpBehindAProxy: the line names the player, whose address comes in the same callback.
func TestHeldUpBehindAProxy(t *testing.T) {
	out := &logbook{}
	held := make(chan struct{})
	server, err := driver.New(driver.Config{
		EventLoops:     1,
		Logger:         slog.New(slog.NewTextHandler(out, nil)),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	require.NoError(t, err)
	defer server.Close()
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) { <-held }})
	defer close(held)
	require.NoError(t, server.Initialize(driver.Bind{Address: "127.0.0.1"}))
	require.NoError(t, server.StartListen(0))
	_, err = dial(t, server).Write([]byte("PROXY TCP4 203.0.113.1 10.0.0.1 1 2\r\n"))
	require.NoError(t, err)
	eventually(t, "that it shows", func() bool { return server.Stats().LoopsHeldUp == 1 })
	lines := out.lines("held up")
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], "203.0.113.1:1")
}

func TestCallbackThatHoldsTheLoopUpShows(t *testing.T) {
	out := &logbook{}
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	server, err := driver.New(driver.Config{
		EventLoops: 1,
		Logger:     slog.New(slog.NewTextHandler(out, nil)),
		OnPacket:   func(driver.Conn, []byte) { <-held },
	})
	require.NoError(t, err)
	defer server.Close()
	client, err := driver.New(driver.Config{EventLoops: 1})
	require.NoError(t, err)
	defer client.Close()
	for _, d := range []*driver.Stream{server, client} {
		require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	}
	require.NoError(t, server.StartListen(0))
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.Port())
	require.NoError(t, client.ConnectTo(addr))
	eventually(t, "the connection", func() bool { return client.IsConnectedTo(addr) })
	require.NoError(t, client.Send(addr, []byte("hold it up")))

	defer release() // before the server is closed
	eventually(t, "that it shows", func() bool { return server.Stats().LoopsHeldUp == 1 })
	require.GreaterOrEqual(t, server.Stats().LoopLatency, 100*time.Millisecond)
	var culprit driver.Conn
	for c := range server.Conns() {
		culprit = c
	}
	lines := out.lines("held up")
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], culprit.RemoteAddr().String())

	release()
	eventually(t, "that it is over", func() bool { return len(out.lines("in time again")) == 1 })
	eventually(t, "a small latency", func() bool { return server.Stats().LoopLatency < 100*time.Millisecond })
	require.EqualValues(t, 1, server.Stats().LoopsHeldUp)
	require.Len(t, out.lines("held up"), 1)
}
