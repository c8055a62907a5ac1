package driver_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// A reader that is slower than the linger limit, and that sends itself, which after an early close would be answered with
// a reset, still gets everything: what the kernel has not delivered is being waited for.
func TestCloseWaitsForASlowReaderOfWhatTheKernelHas(t *testing.T) {
	server, events := newServer(t, driver.Config{EventLoops: 1, LingerTimeout: 500 * time.Millisecond, OutboundBufferSize: 8 << 20,
		OnPacket: func(driver.Conn, []byte) {}})
	nc := dial(t, server)
	require.NoError(t, nc.SetReadBuffer(32<<10))
	c := events.waitEstablished(t, 1).Conn
	const packets, size = 20, 60000
	for range packets {
		require.NoError(t, c.Send(make([]byte, size)))
	}
	eventually(t, "all in the kernel", func() bool { return c.Stats().OutboundBuffered == 0 })
	c.Close(nil)
	got := 0
	buf := make([]byte, size)
	for {
		n, err := nc.Read(buf)
		got += n
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		_, _ = nc.Write([]byte("\x00\x01x"))
		time.Sleep(50 * time.Millisecond) // its slowness: some two seconds in all, four times the limit
	}
	require.Equal(t, packets*(size+2), got)
}

func TestShutdownInACallbackSendsWhatIsQueued(t *testing.T) {
	var server *driver.Stream
	returned := make(chan error, 1)
	server, _ = newServer(t, driver.Config{OutboundBufferSize: 64 << 20, OnPacket: func(c driver.Conn, _ []byte) {
		for range 300 {
			_ = c.Send(make([]byte, 60000))
		}
		returned <- server.Shutdown(context.Background())
	}})
	nc := dial(t, server)
	_, err := nc.Write([]byte("\x00\x01x"))
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, nc)
	require.NoError(t, err)
	require.EqualValues(t, 300*60002, n)
	require.ErrorIs(t, <-returned, driver.ErrSocketClose)
}

func TestCloseInACallbackOfTheTLSConfigReturns(t *testing.T) {
	returned := make(chan error, 1)
	desc := developmentDesc()
	var server *driver.SecureStream
	desc.TLSConfig = func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			returned <- server.Close()
			return nil, nil
		}
	}
	server, _ = newSecureServer(t, driver.Config{EventLoops: 1}, desc)
	nc := dial(t, server)
	// Whether the handshake succeeds before the driver is closed is of no account.
	_ = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).Handshake()
	require.ErrorIs(t, <-returned, driver.ErrSocketClose)
	require.NoError(t, server.Close())
}

func TestAuthenticatedLeavesTheHandshakeItsLimit(t *testing.T) {
	server, _ := newSecureDriver(t, driver.Config{HandshakeTimeout: 300 * time.Millisecond, LoginTimeout: time.Minute}, developmentDesc())
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp4", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	nc, err := ln.Accept()
	require.NoError(t, err)
	c, err := server.Adopt(nc)
	require.NoError(t, err)
	c.Authenticated()
	require.NoError(t, peer.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.Copy(io.Discard, peer)
	require.NoError(t, err)
	require.EqualValues(t, 1, server.Stats().HandshakesFailed)
}

func TestConnectToAnAddressWithAZoneThatTheSystemDrops(t *testing.T) {
	if _, err := net.InterfaceByName("lo"); err != nil {
		t.Skip("no interface named lo")
	}
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			nc.Close()
		}
	}()
	d, err := driver.New(driver.Config{EventLoops: 1})
	require.NoError(t, err)
	defer d.Close()
	events := &recorder{}
	d.Events().Subscribe(events)
	require.NoError(t, d.Initialize(driver.Bind{Family: driver.IPv6}))
	addr := netip.AddrPortFrom(netip.MustParseAddr("::1%lo"), uint16(ln.Addr().(*net.TCPAddr).Port))
	for i := range 3 {
		require.NoError(t, d.ConnectTo(addr))
		events.waitDisconnected(t, i+1)
	}
}

// Whoever is told of a disconnect may connect again at once: the connection's slot is free by then.
func TestConnectAgainInDisconnected(t *testing.T) {
	for _, dispatch := range []driver.Dispatch{driver.DispatchOnLoop, driver.DispatchOnUpdate} {
		server, _ := newServer(t, driver.Config{})
		client, events := newDriver(t, driver.Config{MaxConnections: 1, Dispatch: dispatch})
		again := make(chan error, 100)
		client.Events().Subscribe(driver.SubscriberFuncs{
			Established: func(ev driver.Event) { ev.Conn.Close(nil) },
			Disconnected: func(ev driver.Event) {
				if len(again) < cap(again) {
					again <- client.ConnectTo(addrOf(server))
				}
			},
		})
		require.NoError(t, client.ConnectTo(addrOf(server)))
		eventually(t, "all connections", func() bool {
			client.Update()
			_, n := events.counts()
			return n == cap(again)+1
		})
		for range cap(again) {
			require.NoError(t, <-again)
		}
	}
}

// TestCloseInAnUpdateOfAnotherDriver: it waits for the Update that delivers this driver's events, and for a Close under way.
func TestCloseInAnUpdateOfAnotherDriver(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		a, _ := newServer(driver.Config{Dispatch: driver.DispatchOnUpdate})
		b, _ := newServer(driver.Config{Dispatch: driver.DispatchOnUpdate})
		var held atomic.Bool // in b's Update
		b.Events().Subscribe(driver.SubscriberFuncs{
			Established: func(driver.Event) {
				held.Store(true)
				defer held.Store(false)
				eventually(t, "the Close", func() bool { return errors.Is(b.StartListen(0), net.ErrClosed) })
				eventually(t, "the end of its connection", func() bool { return b.NumberOfConnections() == 0 })
			},
			Disconnected: func(driver.Event) { assert.False(t, held.Load(), "Disconnected during Established") },
		})
		a.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) {
			assert.NoError(t, b.Close())
			assert.False(t, held.Load(), "closed, and still in Update")
		}})
		dial(t, b)
		dial(t, a)
		var updates sync.WaitGroup
		updates.Go(func() {
			eventually(t, "its connection", func() bool { b.Update(); return b.Stats().Disconnected == 1 })
		})
		eventually(t, "b's Update", held.Load)
		eventually(t, "b's end", func() bool { a.Update(); return b.Stats().Disconnected == 1 })
		updates.Wait()
	})
}

// TestCloseInAnUpdateThatCloseWaitsFor says so: to wait would be for ever.
func TestCloseInAnUpdateThatCloseWaitsFor(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		server, _ := newServer(driver.Config{Dispatch: driver.DispatchOnUpdate})
		updated := make(chan struct{})
		var closed sync.WaitGroup
		server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) {
			defer close(updated)
			closed.Go(func() { assert.NoError(t, server.Close()) })
			eventually(t, "the Close", func() bool { return server.NumberOfConnections() == 0 })
			var err error
			eventually(t, "its own", func() bool { err = server.Close(); return err != nil })
			assert.ErrorIs(t, err, driver.ErrInCallback)
		}})
		dial(t, server)
		eventually(t, "the event", func() bool {
			server.Update()
			select {
			case <-updated:
				return true
			default:
				return false
			}
		})
		closed.Wait()
	})
}

// TestWaitForDataInUpdate ends with Close, which waits for Update.
func TestWaitForDataInUpdate(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		server, _ := newServer(driver.Config{Dispatch: driver.DispatchOnUpdate})
		var closed sync.WaitGroup
		waited := make(chan error, 1)
		server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) {
			closed.Go(func() { assert.NoError(t, server.Close()) })
			waited <- server.WaitForData(context.Background())
		}})
		dial(t, server)
		eventually(t, "the end of waiting", func() bool { server.Update(); return len(waited) == 1 })
		require.ErrorIs(t, <-waited, net.ErrClosed)
		closed.Wait()
	})
}
