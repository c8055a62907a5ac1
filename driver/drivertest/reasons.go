package drivertest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// errKicked is an application's own reason.
var errKicked = errors.New("kicked by a game master")

// refused is what the system says where nobody listens.
const refused = syscall.ECONNREFUSED

func reasonProperties() []property {
	return []property{
		{"ErrPeerClosed", func(s *suite) {
			l := s.pair(driver.Config{}, driver.Config{})
			l.cc.Close(errKicked)
			reason := l.server.awaitEnd(l.sc)
			require.ErrorIs(s, reason, driver.ErrPeerClosed)
			require.ErrorIs(s, reason, io.EOF)
		}},
		{"Truncated", reasonTruncated},
		{"ErrDisconnected", reasonDisconnected},
		{"OwnReason", reasonOwn},
		{"OwnReasonThatWrapsAStandardError", reasonOwnWraps},
		{"FirstWins", reasonFirstWins},
		{"ErrShutdown", reasonShutdown},
		{"ErrIdleTimeout", reasonIdle},
		{"ErrLoginTimeout", reasonLogin},
		{"ErrProtocol", func(s *suite) {
			l := s.pair(driver.Config{Framing: raw{}}, driver.Config{})
			require.NoError(s, l.cc.Send([]byte("\x00\x00")))
			require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrProtocol)
		}},
		{"ErrSlowConsumer", reasonSlowConsumer},
		{"ErrRateLimited", reasonRateLimited},
		{"ErrHijacked", func(s *suite) {
			l := s.pair(driver.Config{}, driver.Config{})
			s.hijack(l.sc)
			require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrHijacked)
		}},
		{"ErrStallTimeout", reasonStall},
		{"ErrConnectTimeout", reasonConnectTimeout},
		{"DisconnectFromGivesUpConnectTo", reasonGivenUp},
	}
}

func reasonDisconnected(s *suite) {
	for _, end := range []func(l *link){
		func(l *link) { require.NoError(s, l.server.DisconnectFrom(l.sc.RemoteAddr())) },
		func(l *link) { l.sc.Close(nil) },
	} {
		l := s.pair(driver.Config{}, driver.Config{})
		end(l)
		require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrDisconnected)
		require.ErrorIs(s, l.client.awaitEnd(l.cc), driver.ErrPeerClosed)
	}
}

func reasonOwn(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	l.sc.Close(errKicked)
	require.ErrorIs(s, l.server.awaitEnd(l.sc), errKicked)
}

// reasonOwnWraps: a reason of the application's is not taken for something that happened to the socket.
func reasonOwnWraps(s *suite) {
	for _, cause := range []error{io.EOF, net.ErrClosed, os.ErrDeadlineExceeded, syscall.ECONNRESET, os.NewSyscallError("read", syscall.EIO)} {
		l := s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
		own := fmt.Errorf("%w: the player's save game: %w", errKicked, cause)
		l.sc.Close(own)
		reason := l.server.awaitEnd(l.sc)
		require.ErrorIs(s, reason, errKicked)
		require.NotErrorIs(s, reason, driver.ErrPeerClosed)
	}
	l := s.pair(driver.Config{}, driver.Config{})
	l.sc.Close(io.EOF)
	require.NotErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrPeerClosed, "Close(io.EOF)")
}

func reasonFirstWins(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	l.sc.Close(errKicked)
	l.sc.Close(errors.New("another"))
	_ = l.server.DisconnectFrom(l.sc.RemoteAddr())
	_ = l.client.Close()
	require.ErrorIs(s, l.server.awaitEnd(l.sc), errKicked)
}

func reasonShutdown(s *suite) {
	for _, orderly := range []bool{true, false} {
		l := s.pair(driver.Config{}, driver.Config{})
		if orderly {
			s.must("Shutdown", func() { assert.NoError(s, l.server.Shutdown(s.context())) })
		} else {
			s.must("Close", func() { assert.NoError(s, l.server.Close()) })
		}
		reason := l.server.awaitEnd(l.sc)
		require.ErrorIs(s, reason, driver.ErrShutdown)
		require.ErrorIs(s, reason, net.ErrClosed)
		l.client.awaitEnd(l.cc)
	}
}

// reasonIdle: receiving keeps a connection, sending does not.
func reasonIdle(s *suite) {
	const idle = time.Second
	l := s.pair(driver.Config{}, driver.Config{IdleTimeout: idle})
	last, longest := time.Now(), time.Duration(0)
	for began := last; time.Since(began) < 2*idle; time.Sleep(idle / 20) {
		_ = l.cc.Send([]byte("alive"))
		longest = max(longest, time.Since(last))
		last = time.Now()
	}
	if longest < idle/2 { // else this machine was too slow to tell
		require.True(s, l.client.IsConnectedTo(l.server.addr()), "idle, with a packet every 50 ms")
	}
	s.await("the end", func() bool {
		_ = l.sc.Send([]byte("does not count"))
		_, down := l.server.events.counts()
		return down == 1
	})
	reason := l.server.awaitEnd(l.sc)
	require.ErrorIs(s, reason, driver.ErrIdleTimeout)
	require.ErrorIs(s, reason, os.ErrDeadlineExceeded)
	l.client.awaitEnd(l.cc)
}

func reasonLogin(s *suite) {
	server := s.bare(driver.Config{LoginTimeout: 300 * time.Millisecond})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
		if server.Stats().Accepted == 1 {
			ev.Conn.Authenticated()
		}
	}})
	known, unknown := s.client(driver.Config{}), s.client(driver.Config{})
	kc, ks := s.connect(known, server)
	began := time.Now()
	require.NoError(s, unknown.ConnectTo(server.addr()))
	s.await("Disconnected", func() bool { return server.Stats().Disconnected == 1 })
	require.GreaterOrEqual(s, time.Since(began), 200*time.Millisecond)
	var reason error
	s.await("its event", func() bool {
		for _, ev := range server.events.all() {
			if !ev.up {
				reason = ev.Reason
			}
		}
		return reason != nil
	})
	require.ErrorIs(s, reason, driver.ErrLoginTimeout)
	require.ErrorIs(s, reason, os.ErrDeadlineExceeded)
	(&link{known, server, kc, ks}).talks("logged in")

	// It does not apply to connections that were dialled.
	dialler := s.client(driver.Config{LoginTimeout: 50 * time.Millisecond})
	patient := s.server(driver.Config{})
	dc, ps := s.connect(dialler, patient)
	time.Sleep(150 * time.Millisecond)
	(&link{dialler, patient, dc, ps}).talks("dialled")
}

func reasonSlowConsumer(s *suite) {
	for _, broadcast := range []bool{false, true} {
		l := s.pair(driver.Config{}, driver.Config{SlowConsumer: driver.DisconnectSlow})
		l.cc.PauseReading()
		for deadline := time.Now().Add(patience); ; {
			if broadcast {
				if l.server.Broadcast(make([]byte, 10000), nil) == 0 {
					break
				}
			} else if err := l.sc.Send(make([]byte, 10000)); err != nil {
				require.ErrorIs(s, err, driver.ErrOutboundFull)
				break
			}
			require.True(s, time.Now().Before(deadline))
		}
		require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrSlowConsumer)
	}
}

func reasonRateLimited(s *suite) {
	for name, limit := range map[string]driver.Config{
		"packets": {PacketsPerSecond: 50},
		"bytes":   {BytesPerSecond: 20_000},
	} {
		for _, onPacket := range []bool{true, false} {
			k := newChecker(1)
			cfg, start := receiving(limit, onPacket, k.take)
			l := s.pair(driver.Config{}, cfg)
			start(l.server)
			_, err := sendAll(s.context(), l.cc, 0, 1_000_000, func(int) int { return 50 })
			require.Error(s, err, name)
			require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrRateLimited, name)
			require.False(s, k.failed(), name)
			l.client.awaitEnd(l.cc)
		}
	}
}

func reasonStall(s *suite) {
	l := s.pair(driver.Config{StallTimeout: 200 * time.Millisecond}, driver.Config{})
	l.sc.PauseReading()
	// The kernel takes more for a while.
	s.await("the end", func() bool { return errors.Is(l.cc.Send(make([]byte, 10000)), net.ErrClosed) })
	ended := time.Now()
	reason := l.client.awaitEnd(l.cc)
	require.Less(s, time.Since(ended), 3*time.Second, "told late: something waits for a peer that takes nothing")
	require.ErrorIs(s, reason, driver.ErrStallTimeout)
	require.ErrorIs(s, reason, os.ErrDeadlineExceeded)
	// A connection with nothing queued does not stall.
	q := s.pair(driver.Config{StallTimeout: 50 * time.Millisecond}, driver.Config{})
	q.talks("before")
	time.Sleep(150 * time.Millisecond)
	q.talks("after")
}

// reasonGivenUp: DisconnectFrom after ConnectTo always finds it, whatever state it is in.
func reasonGivenUp(s *suite) {
	server := s.server(driver.Config{})
	client := s.client(driver.Config{EventLoops: 1})
	for i := range s.amount(300) {
		require.NoError(s, client.ConnectTo(server.addr()))
		for end := time.Now().Add(time.Duration(i%30) * 20 * time.Microsecond); time.Now().Before(end); {
			runtime.Gosched()
		}
		require.NoError(s, client.DisconnectFrom(server.addr()), "DisconnectFrom %d µs after ConnectTo", i%30*20)
		s.await("the outcome", func() bool {
			st := client.Stats()
			return st.Dialled+st.ConnectsFailed == uint64(i+1) && st.Disconnected == st.Dialled
		})
	}
	for _, ev := range client.events.all() {
		if !ev.up {
			require.ErrorIs(s, ev.Reason, driver.ErrDisconnected)
		}
	}
}

// reasonConnectTimeout: a server whose backlog is full does not answer.
func reasonConnectTimeout(s *suite) {
	server := s.bound(driver.Config{MaxConnections: 1}, driver.Bind{Address: host})
	require.NoError(s, server.StartListen(1))
	s.connect(s.client(driver.Config{EventLoops: 1}), server)
	for range 6 {
		client := s.client(driver.Config{EventLoops: 1, ConnectTimeout: 200 * time.Millisecond})
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("an outcome", func() bool {
			_, down := client.events.counts()
			return down > 0 || client.NumberOfConnections() == 1 || s.secure
		})
		if s.secure {
			// Where the system answered, it is the handshake that waits.
			time.Sleep(300 * time.Millisecond)
		}
		for _, ev := range client.events.all() {
			if !ev.up {
				require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(ev.Reason))
				require.ErrorIs(s, ev.Reason, driver.ErrConnectTimeout)
				require.ErrorIs(s, ev.Reason, os.ErrDeadlineExceeded)
				return
			}
		}
	}
	s.Skip("this system's backlog does not fill up")
}

// reasonTruncated: a TLS stream that ends without the peer's close_notify may have been cut by anybody, also between two records.
// Without TLS there is no telling.
func reasonTruncated(s *suite) {
	server := s.server(driver.Config{})
	nc := s.dialRaw(server)
	_, err := s.secured(nc).Write(frame([]byte("the last")))
	require.NoError(s, err)
	server.expect("the last")
	c, ok := server.Conn(nc.LocalAddr().(*net.TCPAddr).AddrPort())
	require.True(s, ok)
	require.NoError(s, nc.(*net.TCPConn).CloseWrite())
	reason := server.awaitEnd(c)
	if s.secure {
		require.ErrorIs(s, reason, io.ErrUnexpectedEOF)
		require.NotErrorIs(s, reason, driver.ErrPeerClosed)
		return
	}
	require.ErrorIs(s, reason, driver.ErrPeerClosed)
}
