package tcp_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gridstream/loop/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// scriptedListener fails as often as it is told to, then accepts for real.
type scriptedListener struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (l *scriptedListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		l.mu.Unlock()
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	}
	l.mu.Unlock()
	return l.Listener.Accept()
}

// lines is a log of which the levels are kept.
type lines struct {
	mu     sync.Mutex
	levels []slog.Level
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.levels = append(l.levels, r.Level)
	return nil
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }

func (l *lines) all() []slog.Level {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.levels)
}

func startAcceptor(t *testing.T, slots *tcp.Slots, errs ...error) (addr string, accepted, failed *atomic.Int64, a *tcp.Acceptor) {
	return startLoggingAcceptor(t, slots, slog.DiscardHandler, errs...)
}

func startLoggingAcceptor(t *testing.T, slots *tcp.Slots, log slog.Handler, errs ...error) (addr string, accepted, failed *atomic.Int64, a *tcp.Acceptor) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted, failed = new(atomic.Int64), new(atomic.Int64)
	a = tcp.Accept(tcp.AcceptorConfig{
		Listener: &scriptedListener{Listener: ln, errs: errs},
		Slots:    slots,
		Logger:   slog.New(log),
		Accept: func(nc net.Conn) error {
			accepted.Add(1)
			t.Cleanup(func() { nc.Close() })
			return nil
		},
		Failed: func(error) { failed.Add(1) },
	})
	t.Cleanup(func() { _ = a.Stop(); a.Wait() })
	return ln.Addr().String(), accepted, failed, a
}

func dialAddr(t *testing.T, addr string) {
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
}

func TestAcceptorSurvivesEveryError(t *testing.T) {
	errs := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO,
		syscall.ENETDOWN, syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.EPERM, errors.New("unheard of")}
	var log lines
	addr, accepted, failed, _ := startLoggingAcceptor(t, tcp.NewSlots(10), &log, errs...)
	dialAddr(t, addr)
	eventually(t, "the connection", func() bool { return accepted.Load() == 1 })
	require.EqualValues(t, len(errs), failed.Load())
	both := func() bool { return slices.Equal(log.all(), []slog.Level{slog.LevelError, slog.LevelInfo}) }
	eventually(t, "a line when it begins, and one when it is over", both)
	dialAddr(t, addr)
	eventually(t, "another connection", func() bool { return accepted.Load() == 2 })
	require.True(t, both(), "%v", log.all())
}

func TestAcceptorLeavesConnectionsInTheBacklogWithoutSlots(t *testing.T) {
	slots := tcp.NewSlots(2)
	var log lines
	addr, accepted, _, _ := startLoggingAcceptor(t, slots, &log)
	for range 5 {
		dialAddr(t, addr)
	}
	eventually(t, "two", func() bool { return accepted.Load() == 2 })
	require.False(t, slots.TryAcquire())
	for n := int64(3); n <= 5; n++ {
		slots.Release()
		eventually(t, "one more", func() bool { return accepted.Load() == n })
		require.False(t, slots.TryAcquire())
	}
	require.Equal(t, []slog.Level{slog.LevelWarn}, log.all(), "one line, however often")
}

func TestAcceptorStopsWhileItWaits(t *testing.T) {
	t.Run("for a connection", func(t *testing.T) {
		_, _, _, a := startAcceptor(t, tcp.NewSlots(1))
		require.NoError(t, a.Stop())
		a.Wait()
	})
	t.Run("for a slot", func(t *testing.T) {
		slots := tcp.NewSlots(1)
		require.True(t, slots.TryAcquire())
		_, _, _, a := startAcceptor(t, slots)
		require.NoError(t, a.Stop())
		a.Wait()
	})
	t.Run("after an error", func(t *testing.T) {
		errs := make([]error, 1000)
		for i := range errs {
			errs[i] = syscall.EMFILE
		}
		_, _, failed, a := startAcceptor(t, tcp.NewSlots(1), errs...)
		eventually(t, "an error", func() bool { return failed.Load() > 0 })
		require.NoError(t, a.Stop())
		a.Wait()
		require.Less(t, failed.Load(), int64(1000))
	})
}

func TestSlotsAreNeverMoreThanTheirNumber(t *testing.T) {
	slots := tcp.NewSlots(3)
	var used, most atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				if slots.TryAcquire() {
					n := used.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					used.Add(-1)
					slots.Release()
				}
			}
		})
	}
	stop := make(chan struct{})
	wg.Go(func() {
		for range 2000 {
			if slots.Acquire(stop) {
				slots.Release()
			}
		}
	})
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int64(3))
	for range 3 {
		require.True(t, slots.TryAcquire())
	}
	require.False(t, slots.TryAcquire())
	timer := time.AfterFunc(10*time.Millisecond, func() { close(stop) })
	defer timer.Stop()
	require.False(t, slots.Acquire(stop))
}

// knowing is a connection of which more is known than its socket has.
type knowing struct {
	*net.TCPConn
	what string
}

func (k knowing) Again() func(*net.TCPConn) net.Conn {
	return func(nc *net.TCPConn) net.Conn { return knowing{nc, k.what} }
}

type knowingListener struct{ net.Listener }

func (l knowingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return knowing{nc.(*net.TCPConn), nc.RemoteAddr().String()}, nil
}

// TestShortageKeepsWhatIsKnown: a connection that is handed over once more is what it was.
func TestShortageKeepsWhatIsKnown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	got := make(chan net.Conn, 1)
	var calls, failed atomic.Int64
	a := tcp.Accept(tcp.AcceptorConfig{
		Listener: knowingListener{&scriptedListener{Listener: ln, errs: []error{syscall.EMFILE}}}, // it hands over itself from then on
		Slots:    tcp.NewSlots(10),
		Logger:   slog.New(slog.DiscardHandler),
		Accept: func(nc net.Conn) error {
			if calls.Add(1) <= 2 {
				nc.Close()
				return syscall.EMFILE
			}
			got <- nc
			return nil
		},
		Failed: func(error) { failed.Add(1) },
	})
	defer func() {
		require.NoError(t, a.Stop())
		a.Wait()
	}()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	accepted := <-got
	defer accepted.Close()
	require.IsType(t, knowing{}, accepted)
	require.Equal(t, nc.LocalAddr().String(), accepted.(knowing).what)
	require.EqualValues(t, 3, failed.Load())
}
