package loop_test

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gridstream/loop"
	"gridstream/loop/link"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // the goroutines that importing gnet starts
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// patience bounds every wait; nothing passes by waiting for it.
const patience = 20 * time.Second

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func newEngine(t testing.TB, cfg link.Config) *loop.Engine {
	t.Helper()
	if cfg.Loops == 0 {
		cfg.Loops = 2
	}
	if cfg.OutboundLimit == 0 {
		cfg.OutboundLimit = 64 << 10
	}
	if cfg.Linger == 0 {
		cfg.Linger = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := loop.NewEngine(cfg)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// end is a connection and what its handler was told.
type end struct {
	link.Sealing
	onData func(e *end, b []byte)

	mu       sync.Mutex
	received []byte
	opens    int
	closes   int
	drained  int
	wakes    int
	panics   int
	deadline int
	reason   error
}

func (e *end) count(n *int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*n++
}

func (e *end) OnOpen() { e.count(&e.opens) }
func (e *end) OnData(b []byte) {
	if e.onData != nil {
		e.onData(e, b)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.received = append(e.received, b...)
}
func (e *end) set(l link.Link) { e.Sealing = l.(link.Sealing) }

func (e *end) OnWake()                  { e.count(&e.wakes) }
func (e *end) OnDrained()               { e.count(&e.drained) }
func (e *end) OnDeadline()              { e.count(&e.deadline) }
func (e *end) OnPanic(*link.PanicError) { e.count(&e.panics) }
func (e *end) OnClose(reason error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closes++
	e.reason = reason
}

func (e *end) snapshot() end {
	e.mu.Lock()
	defer e.mu.Unlock()
	return end{received: append([]byte(nil), e.received...), opens: e.opens, closes: e.closes, drained: e.drained,
		wakes: e.wakes, panics: e.panics, deadline: e.deadline, reason: e.reason}
}

// size is how many bytes were received.
func (e *end) size() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.received)
}

func (e *end) waitClosed(t testing.TB) error {
	t.Helper()
	eventually(t, "OnClose", func() bool { return e.snapshot().closes > 0 })
	return e.snapshot().reason
}

// pair attaches one end of a TCP connection; the other is the test's.
func pair(t testing.TB, e *loop.Engine, onData func(*end, []byte)) (*end, *net.TCPConn) {
	t.Helper()
	nc, peer := accepted(t)
	c := &end{onData: onData}
	require.NoError(t, e.Attach(nc, c, c.set))
	require.Equal(t, 1, c.snapshot().opens)
	require.Equal(t, link.Open, c.State())
	return c, peer
}

// accepted is a connection that nobody has attached yet, and its peer.
func accepted(t testing.TB) (nc, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	p, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	c, err := ln.Accept()
	require.NoError(t, err)
	return c.(*net.TCPConn), p.(*net.TCPConn)
}

func TestConnReadsAndWrites(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{}), nil)
	_, err := peer.Write([]byte("to the loop"))
	require.NoError(t, err)
	eventually(t, "the bytes", func() bool { return string(c.snapshot().received) == "to the loop" })
	require.NoError(t, c.Write(nil, []byte("from the loop"), 13))
	b := make([]byte, 13)
	_, err = io.ReadFull(peer, b)
	require.NoError(t, err)
	require.Equal(t, "from the loop", string(b))
	require.EqualValues(t, 11, c.Received())
	eventually(t, "the count of what the kernel took", func() bool { return c.Sent() == 13 })
}

func TestConnWriteIsBoundedAndTellsWhenDrained(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{OutboundLimit: 10000}), nil)
	// More than the kernel takes while nobody reads: the queue, empty before, is over its limit for good.
	const first = 32 << 20
	require.NoError(t, c.Write(nil, make([]byte, first), first))
	for range 10 {
		require.ErrorIs(t, c.Write(nil, []byte("x"), 1), link.ErrFull)
	}
	require.Greater(t, c.Buffered(), 10000)
	require.Zero(t, c.snapshot().drained)
	go io.Copy(io.Discard, peer)
	eventually(t, "OnDrained", func() bool { return c.snapshot().drained == 1 })
	eventually(t, "all sent", func() bool { return c.Sent() == first })
	require.NoError(t, c.Write(nil, []byte("x"), 1))
	eventually(t, "the last byte sent", func() bool { return c.Sent() == first+1 })
	require.Equal(t, 1, c.snapshot().drained, "one for any number of refusals")
}

func TestEmptyQueueTakesOneWriteOfAnySize(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{OutboundLimit: 10}), nil)
	require.NoError(t, c.Write(nil, make([]byte, 1<<20), 1<<20))
	n, err := io.ReadFull(peer, make([]byte, 1<<20))
	require.NoError(t, err)
	require.Equal(t, 1<<20, n)
}

func TestPausedConnReadsNothingAndLosesNothing(t *testing.T) {
	e := newEngine(t, link.Config{})
	c, peer := pair(t, e, nil)
	const a, b = link.Pause(1), link.Pause(2)
	for range 20 {
		before := c.size()
		c.Pause(a)
		c.Pause(b)
		require.True(t, c.Paused())
		// What is written while paused may in part still be read: pausing from outside is not instant. Writing
		// more than one read tells that it has come into effect.
		wrote := make(chan error, 1)
		go func() {
			_, err := peer.Write(make([]byte, 1<<20))
			wrote <- err
		}()
		c.Resume(a)
		require.True(t, c.Paused())
		require.NoError(t, c.Write(nil, []byte("x"), 1)) // writing goes on
		_, err := io.ReadFull(peer, make([]byte, 1))
		require.NoError(t, err)
		c.Resume(b)
		require.NoError(t, <-wrote)
		eventually(t, "every byte", func() bool { return c.size() == before+1<<20 })
	}
	require.Equal(t, link.Open, c.State())
	require.Zero(t, c.snapshot().closes)
}

func TestPauseInsideACallbackStopsAtOnce(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{}), func(c *end, _ []byte) { c.Pause(1) })
	_, err := peer.Write([]byte("a"))
	require.NoError(t, err)
	eventually(t, "the first byte", func() bool { return c.size() == 1 })
	_, err = peer.Write([]byte("b"))
	require.NoError(t, err)
	c.Wake() // answered on the loop, after which a read would have come
	eventually(t, "OnWake", func() bool { return c.snapshot().wakes == 1 })
	require.Len(t, c.snapshot().received, 1)
	c.Resume(1)
	eventually(t, "the second byte", func() bool { return c.size() == 2 })
}

func TestResetWhileParkedStillDeliversWhatCameBefore(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{}), func(c *end, _ []byte) { c.Pause(1) })
	_, err := peer.Write([]byte("a"))
	require.NoError(t, err)
	eventually(t, "the first byte", func() bool { return c.size() == 1 })
	_, err = peer.Write([]byte("bc"))
	require.NoError(t, err)
	require.NoError(t, peer.SetLinger(0))
	require.NoError(t, peer.Close())
	c.Resume(1)
	eventually(t, "the rest, or the next pause", func() bool { c.Resume(1); return c.snapshot().closes == 1 })
	require.ErrorContains(t, c.snapshot().reason, "reset")
}

func TestCloseDeliversWhatIsQueuedAndDropsInput(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{OutboundLimit: 16 << 20}), nil)
	payload := make([]byte, 8<<20)
	require.NoError(t, c.Write(nil, payload, len(payload)))
	require.True(t, c.Close(io.ErrNoProgress))
	require.False(t, c.Close(io.ErrClosedPipe))
	require.ErrorIs(t, c.Write(nil, []byte("x"), 1), link.ErrClosed)
	_, err := peer.Write([]byte("too late"))
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, peer)
	require.NoError(t, err)
	require.EqualValues(t, len(payload), n)
	require.NoError(t, peer.Close())
	require.Equal(t, io.ErrNoProgress, c.waitClosed(t))
	require.Empty(t, c.snapshot().received)
}

func TestCloseOfAParkedConnReadsUntilFIN(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{}), func(c *end, _ []byte) { c.Pause(1) })
	_, err := peer.Write([]byte("a"))
	require.NoError(t, err)
	eventually(t, "the first byte", func() bool { return c.size() == 1 })
	_, err = peer.Write([]byte("never delivered"))
	require.NoError(t, err)
	c.Close(io.ErrNoProgress)
	_, err = io.Copy(io.Discard, peer) // FIN, and no reset
	require.NoError(t, err)
	require.NoError(t, peer.Close())
	require.Equal(t, io.ErrNoProgress, c.waitClosed(t))
	require.Len(t, c.snapshot().received, 1)
}

func TestPeerThatNeverReadsIsClosedAfterTheLingerLimit(t *testing.T) {
	c, _ := pair(t, newEngine(t, link.Config{OutboundLimit: 64 << 20, Linger: 200 * time.Millisecond}), nil)
	require.NoError(t, c.Write(nil, make([]byte, 32<<20), 32<<20))
	c.Close(io.ErrNoProgress)
	require.Equal(t, io.ErrNoProgress, c.waitClosed(t))
}

func TestStallLimit(t *testing.T) {
	c, _ := pair(t, newEngine(t, link.Config{OutboundLimit: 64 << 20, Stall: 200 * time.Millisecond}), nil)
	require.NoError(t, c.Write(nil, make([]byte, 32<<20), 32<<20))
	require.Equal(t, link.ErrStall, c.waitClosed(t))
}

func TestIdleLimitCountsFromTheLastRead(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{Idle: 300 * time.Millisecond}), nil)
	start := time.Now()
	for time.Since(start) < 600*time.Millisecond {
		_, err := peer.Write([]byte("x"))
		require.NoError(t, err)
		n := c.size()
		eventually(t, "a byte", func() bool { return c.size() >= n })
		time.Sleep(10 * time.Millisecond) // the traffic of a peer that is not idle
	}
	require.Zero(t, c.snapshot().closes)
	require.Equal(t, link.ErrIdle, c.waitClosed(t))
}

func TestDeadlineIsToldOnceAndCanBeTakenBack(t *testing.T) {
	e := newEngine(t, link.Config{})
	c, _ := pair(t, e, nil)
	other, _ := pair(t, e, nil)
	other.SetDeadline(50 * time.Millisecond)
	other.SetDeadline(0)
	c.SetDeadline(100 * time.Millisecond)
	eventually(t, "OnDeadline", func() bool { return c.snapshot().deadline == 1 })
	require.Equal(t, link.Open, c.State())
	require.Zero(t, other.snapshot().deadline)
}

func TestPanicEndsOnlyItsConnection(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	bad, badPeer := pair(t, e, func(*end, []byte) { panic("boom") })
	good, goodPeer := pair(t, e, nil)
	_, err := badPeer.Write([]byte("x"))
	require.NoError(t, err)
	var p *link.PanicError
	require.ErrorAs(t, bad.waitClosed(t), &p)
	require.Equal(t, "boom", p.Value)
	require.Contains(t, string(p.Stack), "loop_test.go")
	require.Equal(t, 1, bad.snapshot().panics)
	_, err = goodPeer.Write([]byte("x"))
	require.NoError(t, err)
	eventually(t, "the other's byte", func() bool { return good.size() == 1 })
}

func TestDetachGivesTheSocketBack(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{}), nil)
	nc, _, err := c.Detach(io.ErrNoProgress)
	require.NoError(t, err)
	defer nc.Close()
	require.Equal(t, io.ErrNoProgress, c.waitClosed(t))
	_, err = peer.Write([]byte("hello"))
	require.NoError(t, err)
	b := make([]byte, 5)
	_, err = io.ReadFull(nc, b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))
	_, _, err = c.Detach(io.ErrNoProgress)
	require.ErrorIs(t, err, link.ErrClosed)
}

func TestEngineCloseFinishesEveryConn(t *testing.T) {
	e := newEngine(t, link.Config{OutboundLimit: 64 << 20})
	var ends []*end
	for i := range 40 {
		c, peer := pair(t, e, nil)
		switch i % 4 {
		case 1:
			c.Pause(1)
		case 2:
			require.NoError(t, c.Write(nil, make([]byte, 8<<20), 8<<20))
			c.Close(io.ErrNoProgress)
		case 3:
			require.NoError(t, c.Write(nil, make([]byte, 8<<20), 8<<20))
			require.NoError(t, peer.CloseWrite())
		}
		ends = append(ends, c)
	}
	e.Close()
	for i, c := range ends {
		s := c.snapshot()
		require.Equal(t, 1, s.closes, i)
		require.Error(t, s.reason)
		require.Equal(t, link.Closed, c.State())
		require.ErrorIs(t, c.Write(nil, []byte("x"), 1), link.ErrClosed)
		c.Pause(1)
		c.Resume(1)
		c.Wake()
		c.Close(nil)
		c.Abort(nil)
		_, _, err := c.Detach(nil)
		require.Error(t, err)
	}
	c := &end{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	require.ErrorIs(t, e.Attach(nc.(*net.TCPConn), c, c.set), link.ErrTransportClosed)
	require.Zero(t, c.snapshot().opens)
}

func TestPauseKeepsTheSocketsOptions(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	accepted, err := ln.Accept()
	require.NoError(t, err)
	nc := accepted.(*net.TCPConn)
	require.NoError(t, nc.SetNoDelay(false))
	require.NoError(t, nc.SetKeepAlive(false))

	c := &end{}
	require.NoError(t, newEngine(t, link.Config{}).Attach(nc, c, c.set))
	for i := range 3 {
		c.Pause(1)
		c.Wake() // answered on the loop after the pause came into effect
		eventually(t, "OnWake", func() bool { return c.snapshot().wakes == i+1 })
		c.Resume(1)
		_, err := peer.Write([]byte("x"))
		require.NoError(t, err)
		eventually(t, "a byte", func() bool { return c.size() == i+1 })
	}
	out, _, err := c.Detach(io.ErrNoProgress)
	require.NoError(t, err)
	defer out.Close()
	rc, err := out.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		noDelay, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
		require.NoError(t, err)
		keepAlive, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		require.NoError(t, err)
		require.Zero(t, noDelay)
		require.Zero(t, keepAlive)
	}))
}

type panickingEncoder struct{}

func (panickingEncoder) AppendFrame(dst, _ []byte) []byte { panic("no frame") }

func TestEncoderThatPanicsLeavesTheConnAsItWas(t *testing.T) {
	c, peer := pair(t, newEngine(t, link.Config{}), nil)
	require.Panics(t, func() { _ = c.Write(panickingEncoder{}, []byte("x"), 1) })
	require.Zero(t, c.Buffered())
	require.NoError(t, c.Write(nil, []byte("y"), 1))
	b := make([]byte, 1)
	_, err := io.ReadFull(peer, b)
	require.NoError(t, err)
	require.Equal(t, "y", string(b))
}

func TestPausingDoesNotPutTheStallLimitOff(t *testing.T) {
	c, _ := pair(t, newEngine(t, link.Config{OutboundLimit: 64 << 20, Stall: 300 * time.Millisecond}), nil)
	require.NoError(t, c.Write(nil, make([]byte, 32<<20), 32<<20))
	eventually(t, "the end, of a connection that is paused and resumed all the time", func() bool {
		c.Pause(1)
		c.Wake()
		time.Sleep(30 * time.Millisecond) // well within the limit
		c.Resume(1)
		time.Sleep(30 * time.Millisecond)
		return c.State() == link.Closed
	})
	require.Equal(t, link.ErrStall, c.waitClosed(t))
}
