package tcp

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// AcceptorConfig configures an Acceptor. Every field must be set.
type AcceptorConfig struct {
	Listener net.Listener
	Slots    *Slots // one is taken for each connection; who has it gives it back
	Logger   *slog.Logger

	// Accept takes over a connection and its slot. It may block, on several goroutines at once. Its error tells of a
	// connection that was lost.
	Accept func(nc net.Conn) error
	// Failed is told of each failed accept(2).
	Failed func(err error)
}

// Acceptor accepts connections until it is stopped, whatever accept(2) says. While there is no slot it leaves them in the backlog.
type Acceptor struct {
	// Immutable.
	cfg  AcceptorConfig
	stop chan struct{}
	done sync.WaitGroup

	// accepting is held by the one goroutine that accepts; the others hand over what they accepted.
	accepting sync.Mutex

	// Atomic: somebody else has closed the listener.
	over atomic.Bool

	// Guarded by accepting.
	delay   time.Duration // after a failure; 0: the last accept succeeded
	episode int           // failures since then
	wasFull time.Time     // when that was logged last

	stopOnce sync.Once
	stopErr  error
}

// acceptors is how many goroutines hand connections over: taking one over waits for its loop, which takes many at a time.
const acceptors = 16

// minDelay and maxDelay bound the pause after a failed accept, as in net/http.
const (
	minDelay = 5 * time.Millisecond
	maxDelay = time.Second
)

// Accept starts accepting. The Acceptor owns cfg.Listener.
func Accept(cfg AcceptorConfig) *Acceptor {
	a := &Acceptor{cfg: cfg, stop: make(chan struct{})}
	for range acceptors {
		a.done.Add(1)
		go a.run()
	}
	return a
}

func (a *Acceptor) run() {
	defer a.done.Done()
	defer a.cfg.Slots.notify() // it may have taken what the next acceptor waits for
	for {
		nc := a.next()
		if nc == nil {
			return
		}
		if err := a.cfg.Accept(nc); IsShortage(err) {
			a.accepting.Lock()
			a.failed(err)
			a.accepting.Unlock()
		}
	}
}

// next is the next connection, with its slot; nil when the acceptor is stopped. Where descriptors are short it hands over
// itself, one connection at a time.
func (a *Acceptor) next() net.Conn {
	a.accepting.Lock()
	defer a.accepting.Unlock()
	for a.cfg.Slots.WaitFree(a.stop, a.full) {
		nc, err := a.cfg.Listener.Accept()
		switch {
		case a.stopped():
			if err == nil {
				nc.Close()
			}
			return nil
		case err != nil:
			a.failed(err)
			if !a.backOff(err) {
				return nil
			}
		case a.episode > 0 || nearLimit(nc):
			a.handOverLocked(nc)
		// ConnectTo may have taken the last slot meanwhile: then this one connection waits here.
		case !a.cfg.Slots.Acquire(a.stop):
			nc.Close()
			return nil
		default:
			a.delay = 0
			return nc
		}
	}
	return nil
}

// handOverLocked hands nc over although descriptors are short. Handing over takes one more for a moment, and without it
// closes the connection: so it waits until there is one, and holds a duplicate of nc, to begin again with when somebody
// else in the process was quicker.
func (a *Acceptor) handOverLocked(nc net.Conn) {
	again := func(tc *net.TCPConn) net.Conn { return tc }
	if nc, ok := nc.(Again); ok {
		again = nc.Again()
	}
	for nc != nil {
		var held *os.File
		if !a.insist(func() (err error) { held, err = duplicate(nc); return err }) {
			nc.Close()
			return
		}
		if !a.cfg.Slots.Acquire(a.stop) {
			nc.Close()
			held.Close()
			return
		}
		err := a.cfg.Accept(nc)
		nc = nil
		if IsShortage(err) {
			a.failed(err)
			a.insist(func() error {
				c, err := net.FileConn(held)
				if err == nil {
					nc = again(c.(*net.TCPConn))
				}
				return err
			})
		} else {
			a.recovered()
		}
		held.Close()
	}
}

// Again is a connection of a listener that is more than its socket.
type Again interface {
	net.Conn
	// Again returns what makes the same of a duplicate of its socket.
	Again() func(*net.TCPConn) net.Conn
}

// insist calls f until it does not fail for a shortage, and reports whether it succeeded.
func (a *Acceptor) insist(f func() error) bool {
	for {
		err := f()
		if err == nil {
			return true
		}
		a.failed(err)
		if !IsShortage(err) || !a.backOff(err) {
			return false
		}
	}
}

// duplicate is nc's descriptor once more, if there is another one left besides; of a connection that has none, a stand-in.
func duplicate(nc net.Conn) (*os.File, error) {
	var held *os.File
	var err error
	if f, ok := nc.(interface{ File() (*os.File, error) }); ok {
		held, err = f.File()
	} else {
		held, err = os.Open(os.DevNull)
	}
	if err != nil {
		return nil, err
	}
	more, err := os.Open(os.DevNull)
	if err != nil {
		held.Close()
		return nil, err
	}
	more.Close()
	return held, nil
}

// nearLimit reports whether the descriptors are about to run out: the system gives out the lowest that is free. The limit may
// change while the process runs.
func nearLimit(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	const margin = 4 * acceptors // each may need one more, and the rest of the process some
	near := false
	_ = rc.Control(func(fd uintptr) { near = int(fd)+margin >= DescriptorLimit() })
	return near
}

func (a *Acceptor) stopped() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

// failed counts, and logs the first failure of an episode.
func (a *Acceptor) failed(err error) {
	a.cfg.Failed(err)
	if a.episode++; a.episode == 1 {
		a.cfg.Logger.Error("loop: accept failed; retrying", "addr", a.cfg.Listener.Addr(), "err", err)
	}
}

// full logs, now and then, that connections wait for others to leave.
func (a *Acceptor) full() {
	const often = time.Minute
	if now := time.Now(); a.wasFull.IsZero() || now.Sub(a.wasFull) >= often {
		a.wasFull = now
		a.cfg.Logger.Warn("loop: no room for more connections; they wait in the backlog", "addr", a.cfg.Listener.Addr(), "max", a.cfg.Slots.Max())
	}
}

func (a *Acceptor) recovered() {
	if a.episode > 0 {
		a.cfg.Logger.Info("loop: accepting again", "addr", a.cfg.Listener.Addr(), "failures", a.episode)
	}
	a.episode, a.delay = 0, 0
}

// backOff pauses: for ever longer where something is short, else (the connection was gone before it was accepted, or
// the network was) shortly. The listener of the caller's own may also be closed by the caller: that is for good.
func (a *Acceptor) backOff(err error) bool {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.EINVAL) {
		a.over.Store(true)
		<-a.stop
		return false
	}
	a.delay = min(max(2*a.delay, minDelay), maxDelay)
	if !IsShortage(err) {
		a.delay = minDelay
	}
	timer := time.NewTimer(a.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.stop:
		return false
	}
}

// Over reports that the listener was closed by somebody else: nothing is accepted any more.
func (a *Acceptor) Over() bool { return a.over.Load() }

// Stop stops accepting and closes the listener. It does not wait; a connection that was accepted just before may
// still be handed over. Idempotent.
func (a *Acceptor) Stop() error {
	a.stopOnce.Do(func() {
		close(a.stop)
		a.stopErr = a.cfg.Listener.Close()
	})
	return a.stopErr
}

// Wait blocks until it has stopped and every call of Accept has returned.
func (a *Acceptor) Wait() { a.done.Wait() }
