package loop

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Engine is a set of event loops. Its methods may be called from any goroutine.
type Engine struct {
	// Immutable.
	cfg   Config
	loops []*Loop
	clock *clock
	ended chan struct{} // closed when the loops have ended

	// Atomic: the local address of the connection that came last.
	lastLocal atomic.Pointer[netip.AddrPort]

	enrolling gate
	spare     spare

	// Guarded by runMu: held for reading while gnet is told something from outside a loop, so that its poller is
	// not closed meanwhile.
	runMu   sync.RWMutex
	running bool

	closeOnce sync.Once
}

// NewEngine starts the loops.
func NewEngine(cfg Config) (*Engine, error) {
	e := &Engine{cfg: cfg, ended: make(chan struct{}), running: true}
	e.clock = newClock(e)
	e.spare.open()
	for range cfg.Loops {
		l, err := newLoop(e)
		if err != nil {
			for _, l := range e.loops {
				close(l.reattacher.stop)
				l.reattacher.done.Wait()
				l.stop()
			}
			e.spare.close()
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	go e.clock.run()
	return e, nil
}

// Attach registers nc with the loop that has the fewest connections; c gets its events from h. It owns nc from then on, also when
// it fails; then h is not called. It blocks until OnOpen returned, and must not be called on a loop.
func (e *Engine) Attach(nc *net.TCPConn, c *Conn, h Handler) error {
	if nc.LocalAddr() == nil || nc.RemoteAddr() == nil {
		nc.Close()
		return os.NewSyscallError("getpeername", syscall.ENOTCONN)
	}
	l := e.leastLoaded()
	l.load.Add(1)
	c.loop, c.h, c.fd, c.attaching = l, h, -1, true
	c.local, c.remote = e.shareLocal(AddrPort(nc.LocalAddr())), AddrPort(nc.RemoteAddr())
	err := l.enroll(nc, c)
	if c.State() != New {
		return nil // OnOpen was called, whatever came then
	}
	if err == nil {
		err = ErrNotRegistered
	}
	l.load.Add(-1)
	c.state.Store(uint32(Closed))
	return err
}

// shareLocal is a pointer to a, the same as last time if a is.
func (e *Engine) shareLocal(a netip.AddrPort) *netip.AddrPort {
	last := e.lastLocal.Load()
	if last == nil || *last != a {
		last = &a
		e.lastLocal.Store(last)
	}
	return last
}

// AddrPort is a TCP address without the IPv6 form of an IPv4 address.
func AddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func (e *Engine) leastLoaded() *Loop {
	least := e.loops[0]
	for _, l := range e.loops[1:] {
		if l.load.Load() < least.load.Load() {
			least = l
		}
	}
	return least
}

// whileRunning calls f, which must not block, unless the engine is closed.
func (e *Engine) whileRunning(f func()) bool {
	e.runMu.RLock()
	defer e.runMu.RUnlock()
	if e.running {
		f()
	}
	return e.running
}

// Stats is a snapshot of the counters.
func (e *Engine) Stats() (s Stats) {
	for _, l := range e.loops {
		s.BytesReceived += l.received.Load()
		s.BytesSent += l.sent.Load()
		s.ReadsPaused += l.paused.Load()
	}
	return s
}

// Close ends every connection at once, with ErrEngineClosed where there is no other reason, and every goroutine. All OnClose calls have
// returned when it does. Idempotent. It must not be called on a loop.
func (e *Engine) Close() {
	e.closeOnce.Do(func() {
		e.enrolling.close()
		for _, l := range e.loops {
			close(l.reattacher.stop)
			l.reattacher.done.Wait()
		}
		e.runMu.Lock()
		e.running = false
		e.runMu.Unlock()
		e.clock.close()
		for _, l := range e.loops {
			l.stop()
		}
		close(e.ended)
		e.spare.close()
	})
}

// gate lets callers in until it is closed; close waits for those that are in.
type gate struct {
	// Guarded by mu.
	mu     sync.Mutex
	closed bool

	inside sync.WaitGroup
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside.Add(1)
	return true
}

func (g *gate) leave() { g.inside.Done() }

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
}

// clock is the engine's time, and turns the wheels; while they are all empty it sleeps.
type clock struct {
	// Immutable.
	engine *Engine
	start  time.Time
	wake   chan struct{} // holds one
	stop   chan struct{}
	done   chan struct{}

	// Atomic: written by run, each tick.
	ticked atomic.Int64
}

func newClock(e *Engine) *clock {
	return &clock{
		engine: e,
		start:  time.Now(),
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
}

// now is the time since the engine started.
func (c *clock) now() time.Duration { return time.Since(c.start) }

// coarse is now at the latest tick. It stands still while the wheels are empty.
func (c *clock) coarse() time.Duration { return time.Duration(c.ticked.Load()) }

// kick tells that a wheel is not empty any more. The clock may have slept: it is set, before anybody reads it.
func (c *clock) kick(now time.Duration) {
	c.ticked.Store(int64(now))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *clock) run() {
	defer close(c.done)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if !c.armed() {
			ticker.Stop()
			select {
			case <-c.stop:
				return
			case <-c.wake:
			}
			ticker.Reset(tick)
		}
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		now := c.now()
		c.ticked.Store(int64(now))
		for _, l := range c.engine.loops {
			due := l.wheel.advance(now)
			for _, conn := range due {
				if again := conn.onTimer(now); again > 0 {
					l.schedule(conn, now, again)
				}
			}
			clear(due)
		}
	}
}

func (c *clock) armed() bool {
	for _, l := range c.engine.loops {
		if l.wheel.armed.Load() > 0 {
			return true
		}
	}
	return false
}

func (c *clock) close() {
	close(c.stop)
	<-c.done
}
