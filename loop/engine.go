package loop

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// Engine is a set of event loops. Its methods may be called from any goroutine.
type Engine struct {
	// Immutable.
	cfg   link.Config
	loops []*Loop
	clock *clock
	ended chan struct{} // closed when the loops have ended

	// Atomic: the local address of the connection that came last.
	lastLocal atomic.Pointer[netip.AddrPort]

	batches   batches
	watch     watch
	enrolling gate

	// Guarded by runMu: held for reading while gnet is told something from outside a loop, so that its poller is
	// not closed meanwhile.
	runMu   sync.RWMutex
	running bool

	closeOnce sync.Once
}

var (
	_ link.Transport = (*Engine)(nil)
	_ link.Start     = Start
)

// Start is NewEngine as a link.Start.
func Start(cfg link.Config) (link.Transport, error) {
	e, err := NewEngine(cfg)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// NewEngine starts the loops.
func NewEngine(cfg link.Config) (*Engine, error) {
	e := &Engine{cfg: cfg, ended: make(chan struct{}), running: true}
	e.clock = newClock(e)
	for range cfg.Loops {
		l, err := newLoop(e)
		if err != nil {
			for _, l := range e.loops {
				close(l.reattacher.stop)
				l.reattacher.done.Wait()
				l.stop()
			}
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	go e.clock.run()
	e.startWatch()
	return e, nil
}

// Dial implements link.Transport.
func (e *Engine) Dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	return e.cfg.Socket.Dial(ctx, addr)
}

// Attach implements link.Transport: nc goes to the loop that has the fewest connections.
func (e *Engine) Attach(nc *net.TCPConn, h link.Handler, set func(link.Link)) error {
	if nc.LocalAddr() == nil || nc.RemoteAddr() == nil {
		nc.Close()
		return os.NewSyscallError("getpeername", syscall.ENOTCONN)
	}
	l := e.leastLoaded()
	l.load.Add(1)
	c := &Conn{loop: l, h: h, fd: -1, attaching: true}
	c.local, c.remote = e.shareLocal(tcp.AddrPort(nc.LocalAddr())), tcp.AddrPort(nc.RemoteAddr())
	set(c)
	err := l.enroll(nc, c)
	if c.State() != link.New {
		return nil // OnOpen was called, whatever came then
	}
	if err == nil {
		err = ErrNotRegistered
	}
	l.load.Add(-1)
	c.state.Store(uint32(link.Closed))
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

// Stats implements link.Transport.
func (e *Engine) Stats() (s link.Stats) {
	for _, l := range e.loops {
		s.BytesReceived += l.received.Load()
		s.BytesSent += l.sent.Load()
		s.ReadsPaused += l.paused.Load()
		s.LoopsHeldUp += l.slow.Load()
		s.LoopLatency = max(s.LoopLatency, l.probe.latency(e.clock.now()))
	}
	return s
}

// Close implements link.Transport.
func (e *Engine) Close() {
	e.closeOnce.Do(func() {
		e.stopWatch()
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
