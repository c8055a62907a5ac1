package loop

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"

	"gridstream/loop/link"
)

// Loop is one event loop and what belongs to it: a gnet client that reads, a flusher and a congestion that write, a wheel of time
// limits, and the connections.
type Loop struct {
	// Immutable.
	engine     *Engine
	client     *gnet.Client
	flusher    *flusher
	congestion *congestion
	reattacher reattacher

	// Immutable after the first OnOpen, which comes before whoever uses it has a connection to use it for.
	el gnet.EventLoop

	// Atomic.
	load     atomic.Int64 // connections, those being attached included
	received atomic.Uint64
	sent     atomic.Uint64
	paused   atomic.Uint64
	slow     atomic.Uint64 // times that it was held up
	busy     atomic.Bool   // a callback has run since KeepAwake last asked

	spare  spare
	urgent urgent
	probe  probe
	wheel  wheel

	// Guarded by mu, a leaf.
	mu    sync.Mutex
	first *Conn // those that are open and not finished
}

func newLoop(e *Engine) (*Loop, error) {
	l := &Loop{engine: e}
	l.wheel.init()
	l.reattacher.wake = make(chan struct{}, 1)
	l.reattacher.stop = make(chan struct{})
	var err error
	if l.congestion, err = newCongestion(); err != nil {
		return nil, err
	}
	l.client, err = gnet.NewClient(&handler{loop: l},
		gnet.WithNumEventLoop(1),
		gnet.WithLogger(gnetLogger{e.cfg.Logger}),
		gnet.WithTCPNoDelay(gnet.TCPDelay)) // left as it is: gnet would set it again at each resume
	if err == nil {
		err = l.client.Start()
	}
	if err != nil {
		l.congestion.release()
		return nil, err
	}
	l.spare.refill()
	l.reattacher.spare.refill()
	l.flusher = startFlusher(&e.batches, helpersOf(e.cfg.Loops))
	go l.congestion.run()
	l.reattacher.done.Add(1)
	go l.reattacher.run()
	return l, nil
}

// handler is the gnet side of a Loop. All its methods run on the loop.
type handler struct {
	gnet.BuiltinEventEngine
	loop *Loop
}

func (h *handler) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	l := h.loop
	c := gc.Context().(*Conn)
	if l.el == nil {
		l.el = gc.EventLoop()
	}
	l.ignoreUrgent(gc.Fd())
	c.mu.Lock()
	c.attaching = false
	c.reopened = true
	if c.State() != link.New {
		c.reattachOnLoopLocked(gc)
		done := c.afterFlushLocked()
		leaving := c.settleOnLoopLocked()
		done.finish = done.finish || c.finishableLocked()
		c.mu.Unlock()
		done.run(c)
		return nil, actionOf(leaving)
	}
	c.gc, c.fd = gc, int32(gc.Fd())
	now := l.engine.clock.now()
	c.lastRead.Store(int64(now))
	c.corked.Store(true)
	c.state.Store(uint32(link.Open))
	l.link(c)
	c.mu.Unlock()
	if idle := l.engine.cfg.Idle; idle > 0 {
		l.schedule(c, now, idle)
	}
	c.guard(c.h.OnOpen)
	return nil, actionOf(c.uncorkOnLoop())
}

func (h *handler) OnTraffic(gc gnet.Conn) gnet.Action {
	c := gc.Context().(*Conn)
	b, _ := gc.Next(-1)
	c.received.Add(uint64(len(b)))
	h.loop.received.Add(uint64(len(b)))
	if h.loop.engine.cfg.Idle > 0 {
		c.lastRead.Store(int64(h.loop.engine.clock.coarse()))
	}
	c.corked.Store(true)
	if c.State() == link.Open {
		c.deliver(b)
	} else {
		c.dropOnLoop(len(b))
	}
	return actionOf(c.uncorkOnLoop())
}

func (c *Conn) deliver(b []byte) {
	defer link.Contain(c, c.h)
	c.h.OnData(b)
}

// OnClose: gnet is about to close its copy of the descriptor.
func (h *handler) OnClose(gc gnet.Conn, err error) gnet.Action {
	l := h.loop
	c := gc.Context().(*Conn)
	c.mu.Lock()
	if c.gc != gc {
		// Parked, or taken out: gnet's copy is not the connection any more.
		c.mu.Unlock()
		return gnet.None
	}
	c.unwatchLocked()
	c.gc = nil
	if err == io.EOF { // the poller told; of a read that found the end it comes wrapped
		if failure := socketError(int(c.fd)); failure != nil {
			err = failure
		}
	}
	eof := errors.Is(err, io.EOF)
	if eof && !c.idleLocked() && (c.State() == link.Open || c.State() == link.Draining) {
		if fd, dupErr := l.dup(int(c.fd)); dupErr == nil {
			l.drainAfterEOFLocked(c, fd)
			done := c.afterFlushLocked()
			c.mu.Unlock()
			done.run(c)
			return gnet.None
		}
	}
	if err == nil {
		c.sealEndLocked() // the engine closes
	}
	c.fd = -1
	switch {
	case eof:
		c.setReasonLocked(io.EOF)
	case err != nil:
		c.setReasonLocked(err)
	}
	c.setReasonLocked(link.ErrTransportClosed)
	c.state.Store(uint32(link.Closed))
	c.dropQueueLocked()
	c.finished = true
	c.mu.Unlock()
	l.finishOnLoop(c)
	return gnet.None
}

// socketError is the error that a socket has, nil without one. gnet takes what the poller tells (EPOLLERR) for the end of input,
// where that comes without anything to read. EPIPE is what a socket has that was reset behind the end of input. A socket may have an
// error and live, e.g. when a router had no route for a moment: who has read the end must not ask.
func socketError(fd int) error {
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if errno := syscall.Errno(n); err == nil && errno != 0 && errno != syscall.EPIPE {
		return os.NewSyscallError("read", errno)
	}
	return nil
}

// drainAfterEOFLocked: the peer sends nothing more, but may still read what is queued for it, through fd, which is ours.
func (l *Loop) drainAfterEOFLocked(c *Conn, fd int) {
	c.fd = int32(fd)
	c.eof = true
	if c.State() == link.Open {
		c.setReasonLocked(io.EOF)
		c.state.Store(uint32(link.Draining))
		c.beginLingerLocked()
	}
	c.flushLocked()
}

func actionOf(leaving gnet.Conn) gnet.Action {
	if leaving != nil {
		return gnet.Close
	}
	return gnet.None
}

// task runs on the loop.
type task func()

func (t task) Run(context.Context) error { t(); return nil }

// execute runs f on the loop, soon, and in no order with anything else. It reports false, and f never runs, when
// the engine is closed; a task that was accepted can still be lost to Engine.Close, which finishes all connections itself.
func (l *Loop) execute(f task) bool {
	return l.engine.whileRunning(func() { _ = l.el.Execute(context.Background(), f) })
}

// closeLater has gnet close gc on the loop. A stale gc is left alone by gnet.
func (l *Loop) closeLater(gc gnet.Conn) {
	l.engine.whileRunning(func() { _ = gc.Close() })
}

// closeOnLoop has gnet close gc now, where there is one.
func (l *Loop) closeOnLoop(gc gnet.Conn) {
	if gc != nil {
		_ = l.el.Close(gc)
	}
}

// finishLater has OnClose called on the loop. c.finished is set.
func (l *Loop) finishLater(c *Conn) { l.execute(func() { l.finishOnLoop(c) }) }

// finishOnLoop is the end of a connection that was open.
func (l *Loop) finishOnLoop(c *Conn) {
	l.wheel.remove(c)
	l.unlink(c)
	l.load.Add(-1)
	c.mu.Lock()
	reason := c.reason
	c.mu.Unlock()
	func() {
		defer link.Contain(c, c.h)
		c.h.OnClose(reason)
	}()
}

func (l *Loop) link(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.next = l.first
	if c.next != nil {
		c.next.prev = c
	}
	l.first = c
}

func (l *Loop) unlink(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.prev != nil {
		c.prev.next = c.next
	} else if l.first == c {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}

func (l *Loop) conns() (all []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := l.first; c != nil; c = c.next {
		all = append(all, c)
	}
	return all
}

// schedule has c.onTimer called d from now, or before.
func (l *Loop) schedule(c *Conn, now, d time.Duration) {
	if l.wheel.schedule(c, now, d) {
		l.engine.clock.kick(now)
	}
}

// enroll gives nc to gnet, on this loop, and blocks until OnOpen returned. nc is closed. The caller has to look whether OnOpen
// was called: where the poller refuses, gnet closes its copy and tells nobody.
func (l *Loop) enroll(nc *net.TCPConn, c *Conn) error {
	if !l.engine.enrolling.enter() {
		nc.Close()
		return link.ErrTransportClosed
	}
	defer l.engine.enrolling.leave()
	ownZone(nc.LocalAddr())
	ownZone(nc.RemoteAddr())
	_, err := l.client.EnrollContext(nc, c)
	return err
}

// ownZone gives an address a zone string of its own: gnet puts its memory into a pool on close.
func ownZone(a net.Addr) {
	if t, ok := a.(*net.TCPAddr); ok {
		t.Zone = strings.Clone(t.Zone)
	}
}

// stop ends the goroutines. Every connection is finished when it returns.
func (l *Loop) stop() {
	if err := l.client.Stop(); err != nil && !errors.Is(err, os.ErrClosed) {
		l.engine.cfg.Logger.Warn("loop: stopping an event loop", "err", err)
	}
	// The loop is gone: what it was still asked to do is done here.
	for _, c := range l.conns() {
		c.mu.Lock()
		c.abortLocked(link.ErrTransportClosed)
		c.closeFDLocked()
		c.finished = true
		c.mu.Unlock()
		l.finishOnLoop(c)
	}
	l.flusher.close()
	l.congestion.close()
	l.spare.close()
	l.reattacher.spare.close()
}
