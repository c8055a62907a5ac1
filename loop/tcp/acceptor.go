package tcp

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
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
	most int // descriptors
	stop chan struct{}
	done sync.WaitGroup

	// accepting is held by the one goroutine that accepts; the others hand over what they accepted.
	accepting sync.Mutex

	// Guarded by accepting.
	delay   time.Duration // after a failure; 0: the last accept succeeded
	episode int           // failures since then

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
	a := &Acceptor{cfg: cfg, most: DescriptorLimit(), stop: make(chan struct{})}
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
		nc, inTurn := a.next()
		if nc == nil {
			return
		}
		if !inTurn {
			a.handOver(nc)
		}
	}
}

// next is the next connection, with its slot; nil when the acceptor is stopped. Near the limit of descriptors, where handing over
// needs to know that there is one more, it hands over itself, so that no two count on the same one.
func (a *Acceptor) next() (nc net.Conn, inTurn bool) {
	a.accepting.Lock()
	defer a.accepting.Unlock()
	for a.cfg.Slots.WaitFree(a.stop) {
		nc, err := a.cfg.Listener.Accept()
		careful := err == nil && (a.episode > 0 || a.nearLimit(nc))
		if careful {
			err = a.probe()
		}
		if err == nil {
			a.recovered()
			// ConnectTo may have taken the last slot meanwhile: then this one connection waits here.
			if !a.cfg.Slots.Acquire(a.stop) {
				nc.Close()
				return nil, false
			}
			if careful {
				a.handOverLocked(nc)
			}
			return nc, careful
		}
		if nc != nil {
			nc.Close()
		}
		if a.stopped() {
			return nil, false
		}
		a.failed(err)
		if !a.backOff(err) {
			return nil, false
		}
	}
	return nil, false
}

func (a *Acceptor) handOver(nc net.Conn) {
	if err := a.cfg.Accept(nc); IsShortage(err) {
		a.accepting.Lock()
		defer a.accepting.Unlock()
		a.failed(err)
	}
}

func (a *Acceptor) handOverLocked(nc net.Conn) {
	if err := a.cfg.Accept(nc); IsShortage(err) {
		a.failed(err)
	}
}

// nearLimit reports whether the descriptors are about to run out: the system gives out the lowest that is free.
func (a *Acceptor) nearLimit(nc net.Conn) bool {
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
	_ = rc.Control(func(fd uintptr) { near = int(fd)+margin >= a.most })
	return near
}

// probe waits until there is one more descriptor: registering the connection that was just accepted
// takes it, and without it the connection would be lost.
func (a *Acceptor) probe() error {
	for {
		f, err := os.Open(os.DevNull)
		if err == nil {
			return f.Close()
		}
		a.failed(err)
		if !a.backOff(err) {
			return net.ErrClosed
		}
	}
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
