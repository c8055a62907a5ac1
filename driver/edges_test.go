package driver_test

import (
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/driver/stdnet"
)

// bothDrivers runs f with each implementation.
func bothDrivers(t *testing.T, f func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder))) {
	for name, newDriver := range map[string]func(driver.Config) (*driver.Stream, error){"loops": driver.New, "stdnet": stdnet.New} {
		t.Run(name, func(t *testing.T) {
			f(t, func(cfg driver.Config) (driver.Driver, *recorder) {
				d, err := newDriver(cfg)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, d.Close()) })
				events := &recorder{}
				d.Events().Subscribe(events)
				require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
				require.NoError(t, d.StartListen(0))
				return d, events
			})
		})
	}
}

// brokenReason panics where somebody looks into it, as a nil pointer of such a type does.
type brokenReason struct{ cause error }

func (r *brokenReason) Error() string { return "broken" }
func (r *brokenReason) Unwrap() error { return r.cause }

func TestCloseWithABrokenReason(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		server, events := newServer(driver.Config{MaxConnections: 1})
		for n := 1; n <= 3; n++ { // so that the slot was given back
			nc := dial(t, server)
			var none *brokenReason
			events.waitEstablished(t, n).Conn.Close(none)
			require.NoError(t, nc.Close())
			events.waitDisconnected(t, n)
		}
		require.EqualValues(t, 3, server.Stats().Ends.Disconnected)
	})
}

// TestTheLongestTimeIsNever, and the largest buffer no limit.
func TestTheLongestTimeIsNever(t *testing.T) {
	cfg := driver.Config{
		ConnectTimeout: math.MaxInt64, HandshakeTimeout: math.MaxInt64, LoginTimeout: math.MaxInt64, IdleTimeout: math.MaxInt64,
		StallTimeout: math.MaxInt64, LingerTimeout: math.MaxInt64, ProxyTimeout: math.MaxInt64, ShutdownSpread: math.MaxInt64,
		InboundBufferSize: math.MaxInt, OutboundBufferSize: math.MaxInt,
	}
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		server, events := newServer(cfg)
		nc := dial(t, server)
		c := events.waitEstablished(t, 1).Conn
		const packets, size = 300, 65535
		for range packets {
			require.NoError(t, c.Send(make([]byte, size)))
		}
		timer := time.NewTimer(100 * time.Millisecond) // the wheel has turned
		<-timer.C
		require.Equal(t, 1, server.NumberOfConnections())
		c.Close(nil)
		got, err := io.Copy(io.Discard, nc)
		require.NoError(t, err)
		require.EqualValues(t, packets*(2+size), got)
	})
	secure, events := newSecureServer(t, cfg, developmentDesc())
	client, _ := newSecureDriver(t, driver.Config{}, developmentDesc())
	connect(t, client, secure)
	events.waitEstablished(t, 1)
}

// TestRateOfWhoIsNotRead: what a peer within its rate sends while nobody reads does not end it.
func TestRateOfWhoIsNotRead(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		var packets atomic.Int64
		server, events := newServer(driver.Config{PacketsPerSecond: 20, BytesPerSecond: 60, OnPacket: func(driver.Conn, []byte) { packets.Add(1) }})
		nc := dial(t, server)
		c := events.waitEstablished(t, 1).Conn
		c.PauseReading()
		tick := time.NewTicker(time.Second / 20)
		defer tick.Stop()
		for range 40 {
			<-tick.C
			_, err := nc.Write([]byte{0, 1, 'x'})
			require.NoError(t, err)
		}
		c.ResumeReading()
		eventually(t, "all of it", func() bool { return packets.Load() == 40 })
		require.Equal(t, 1, server.NumberOfConnections())
		_, err := nc.Write(bytes.Repeat([]byte{0, 1, 'x'}, 200)) // beyond it
		require.NoError(t, err)
		require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrRateLimited)
	})
}

// TestUpdateComesToAnEnd, also where each event brings another.
func TestUpdateComesToAnEnd(t *testing.T) {
	server, _ := newServer(t, driver.Config{Dispatch: driver.DispatchOnUpdate})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := ln.Addr().(*net.TCPAddr).AddrPort()
	require.NoError(t, ln.Close())
	failed, most := 0, 100
	server.Events().Subscribe(driver.SubscriberFuncs{Disconnected: func(driver.Event) {
		if failed++; failed < most {
			require.NoError(t, server.ConnectTo(nobody))
			eventually(t, "its outcome", func() bool { return server.Stats().ConnectsFailed == uint64(failed+1) })
		}
	}})
	require.NoError(t, server.ConnectTo(nobody))
	eventually(t, "its outcome", func() bool { return server.Stats().ConnectsFailed == 1 })
	eventually(t, "the event", func() bool { server.Update(); return failed > 0 })
	require.Less(t, failed, most)
	most = 0 // what is left comes with Close
}

func TestWithRemoteAddrUnmaps(t *testing.T) {
	server, _ := newServer(t, driver.Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	c, err := server.Adopt(driver.WithRemoteAddr(nc, netip.MustParseAddrPort("[::ffff:192.0.2.1]:5")))
	require.NoError(t, err)
	require.Equal(t, netip.MustParseAddrPort("192.0.2.1:5"), c.RemoteAddr())
}

// TestListenerClosedByItsOwner is forgotten: the driver says so, and may listen again.
func TestListenerClosedByItsOwner(t *testing.T) {
	d, _ := newDriver(t, driver.Config{})
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, d.StartListenOn(ln))
		require.NoError(t, ln.Close())
		eventually(t, "that it says so", func() bool { return !d.IsListening() })
		require.ErrorIs(t, d.StopListen(), driver.ErrNotListening)
	}
	require.NoError(t, d.StartListen(0))
	dial(t, d)
}

// TestHijackOfASlowReader takes as long as the peer takes something.
func TestHijackOfASlowReader(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		const stall = 500 * time.Millisecond
		server, events := newServer(driver.Config{OutboundBufferSize: 16 << 20, StallTimeout: stall})
		nc := dial(t, server)
		require.NoError(t, nc.SetReadBuffer(64<<10))
		c := events.waitEstablished(t, 1).Conn
		const packets, size = 200, 60_000
		for range packets {
			require.NoError(t, c.Send(make([]byte, size)))
		}
		var got atomic.Int64
		var reads sync.WaitGroup
		reads.Go(func() {
			buf := make([]byte, packets*(size+2)/20)
			for {
				n, err := io.ReadFull(nc, buf)
				got.Add(int64(n))
				if err != nil {
					return
				}
				time.Sleep(stall / 5) // its slowness: four times the limit in all
			}
		})
		hijacked, err := c.Hijack()
		require.NoError(t, err)
		require.NoError(t, hijacked.Close())
		reads.Wait()
		require.EqualValues(t, packets*(size+2), got.Load())
	})
}

// oddFraming does not do as it should.
type oddFraming struct {
	most  int
	split func(b []byte) ([]byte, int, error)
}

func (oddFraming) Overhead() int                         { return 1 }
func (f oddFraming) MaxPacketSize() int                  { return f.most }
func (oddFraming) AppendFrame(dst, packet []byte) []byte { return append(append(dst, packet...), '\n') }

func (f oddFraming) Split(b []byte, _ int) ([]byte, int, error) { return f.split(b) }

func TestOddFraming(t *testing.T) {
	for name, split := range map[string]func(b []byte) ([]byte, int, error){
		"asks for more without end": func([]byte) ([]byte, int, error) { return nil, 0, nil },
		"takes more than there is":  func(b []byte) ([]byte, int, error) { return b, len(b) + 1000, nil },
		"goes back":                 func(b []byte) ([]byte, int, error) { return b, -1, nil },
		"a frame, and an error":     func(b []byte) ([]byte, int, error) { return b, len(b), io.ErrUnexpectedEOF },
	} {
		for _, onPacket := range []func(driver.Conn, []byte){nil, func(driver.Conn, []byte) { t.Error("a packet") }} {
			t.Run(name, func(t *testing.T) {
				bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
					server, events := newServer(driver.Config{Framing: oddFraming{100, split}, OnPacket: onPacket})
					_, err := dial(t, server).Write(make([]byte, 1000))
					require.NoError(t, err)
					require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrProtocol)
				})
			})
		}
	}
	_, err := driver.New(driver.Config{Framing: oddFraming{most: 0}})
	require.ErrorContains(t, err, "Config.Framing has a MaxPacketSize of 0")
}

// TestCloseWithErrHijacked is a reason as any other.
func TestCloseWithErrHijacked(t *testing.T) {
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		server, events := newServer(driver.Config{})
		nc := dial(t, server)
		_, err := nc.Write([]byte{0, 1, 'x'})
		require.NoError(t, err)
		require.NoError(t, server.WaitForData(context.Background()))
		events.waitEstablished(t, 1).Conn.Close(driver.ErrHijacked)
		require.NoError(t, nc.Close())
		events.waitDisconnected(t, 1)
		packet, _ := receive(t, server)
		require.Equal(t, "x", string(packet))
	})
}

// TestComesBackFromTheSamePort: who has left with a reset, and is there again before that was seen, is let in.
func TestComesBackFromTheSamePort(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it takes an address whose ports nobody else uses")
	}
	from := &net.TCPAddr{IP: net.IPv4(127, 201, byte(os.Getpid()>>8), byte(os.Getpid())), Port: 40_000}
	bothDrivers(t, func(t *testing.T, newServer func(driver.Config) (driver.Driver, *recorder)) {
		server, events := newServer(driver.Config{MaxConnectionsPerIP: 1}) // it takes the place of the one before
		const times = 5
		var last net.Conn
		for n := 1; n <= times; n++ {
			nc, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", addrOf(server).String())
			require.NoError(t, err)
			c := events.waitEstablished(t, n).Conn
			c.PauseReading() // so that its end is not seen
			require.NoError(t, nc.(*net.TCPConn).SetLinger(0))
			if n < times {
				require.NoError(t, nc.Close())
			}
			last = nc
		}
		defer last.Close()
		events.waitDisconnected(t, times-1)
		require.Zero(t, server.Stats().AcceptsRefused)
		require.Equal(t, 1, server.NumberOfConnections())
		now, ok := server.Conn(from.AddrPort())
		require.True(t, ok)
		require.Equal(t, events.waitEstablished(t, times).Conn.ID(), now.ID())

		another := &net.TCPAddr{IP: from.IP}
		nc, err := (&net.Dialer{LocalAddr: another}).Dial("tcp", addrOf(server).String())
		require.NoError(t, err)
		defer nc.Close()
		eventually(t, "that another port counts as one more", func() bool { return server.Stats().AcceptsRefused == 1 })
		now.ResumeReading()
		require.NoError(t, last.Close())
		eventually(t, "room for it", func() bool {
			nc, err := (&net.Dialer{LocalAddr: another}).Dial("tcp", addrOf(server).String())
			require.NoError(t, err)
			defer nc.Close()
			return server.Stats().Accepted > times
		})
	})
}

// notTCP is a listener of connections that the driver cannot take.
type notTCP struct{ net.Listener }

func (l notTCP) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return struct{ net.Conn }{nc}, err
}

func TestListenerThatCannotBeTaken(t *testing.T) {
	d, _ := newDriver(t, driver.Config{})
	unix, err := net.Listen("unix", t.TempDir()+"/socket")
	require.NoError(t, err)
	err = d.StartListenOn(unix)
	require.ErrorIs(t, err, driver.ErrSocketListen)
	require.ErrorContains(t, err, "no TCP address")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, d.StartListenOn(notTCP{ln}))
	dial(t, d)
	eventually(t, "that it counts", func() bool { return d.Stats().AcceptsRefused == 1 })
}

// TestABurstForWhoReads is more than the outbound buffer holds, and arrives: the socket has room.
func TestABurstForWhoReads(t *testing.T) {
	const packets, size = 300, 1000
	login := func(c driver.Conn, _ []byte) {
		for range packets {
			if err := c.Send(make([]byte, size)); err != nil {
				t.Errorf("Send: %v", err)
				return
			}
		}
	}
	server, events := newServer(t, driver.Config{SlowConsumer: driver.DisconnectSlow, OnPacket: login})
	nc := dial(t, server)
	read := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, nc)
		read <- n
	}()
	_, err := nc.Write([]byte{0, 1, 'x'}) // what a login gets
	require.NoError(t, err)
	c := events.waitEstablished(t, 1).Conn
	eventually(t, "the answer", func() bool { return c.Stats().PacketsSent == packets })
	for range 100 { // and a broadcast
		require.Equal(t, 1, server.Broadcast(make([]byte, size), nil))
	}
	c.Close(nil)
	require.EqualValues(t, (packets+100)*(2+size), <-read)
	require.Zero(t, server.Stats().SendsRejected)
}
