package loop

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
	a := &Acceptor{cfg: cfg, stop: make(chan struct{})}
	for range acceptors {
		a.done.Add(1)
		go a.run()
	}
	return a
}

func (a *Acceptor) run() {
	defer a.done.Done()
	for {
		nc := a.next()
		if nc == nil {
			return
		}
		if err := a.cfg.Accept(nc); isShortage(err) {
			a.accepting.Lock()
			a.failed(err)
			a.accepting.Unlock()
		}
	}
}

// next is the next connection, with its slot; nil when the acceptor is stopped.
func (a *Acceptor) next() net.Conn {
	a.accepting.Lock()
	defer a.accepting.Unlock()
	for a.cfg.Slots.WaitFree(a.stop) {
		nc, err := a.cfg.Listener.Accept()
		if err == nil && a.episode > 0 {
			err = a.probe()
		}
		if err == nil {
			a.recovered()
			// ConnectTo may have taken the last slot meanwhile: then this one connection waits here.
			if !a.cfg.Slots.Acquire(a.stop) {
				nc.Close()
				return nil
			}
			return nc
		}
		if nc != nil {
			nc.Close()
		}
		if a.stopped() {
			return nil
		}
		a.failed(err)
		if !a.backOff(err) {
			return nil
		}
	}
	return nil
}

// probe waits, after a shortage, until there is one more descriptor: registering the connection that was just accepted
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
	if !isShortage(err) {
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
