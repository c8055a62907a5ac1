package loop

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/valyala/bytebufferpool"
)

// Handler is what a connection's owner does with its events. The methods run on the connection's loop, one at a time,
// and must not block, unless they say otherwise. A panic in one ends the connection with a *PanicError.
type Handler interface {
	// OnOpen is the first; what it sends goes out when it returns.
	OnOpen()
	// OnData takes what was read, all of it: b is only valid until it returns. No call begins after Close or Abort on the loop;
	// one on another goroutine may cross it.
	OnData(b []byte)
	// OnWake answers Conn.Wake.
	OnWake()
	// OnDrained tells, on any goroutine, that half of the queue is free again after a Write that found it full.
	OnDrained()
	// OnDeadline tells, on the clock's goroutine, that the time limit of SetDeadline has come. It does not close.
	OnDeadline()
	// OnPanic tells, on the goroutine of the callback, that one panicked. The connection is aborted next.
	OnPanic(p *PanicError)
	// OnClose is the last, exactly once after OnOpen. The descriptor is gone, or about to go when it returns.
	OnClose(reason error)
}

// Encoder writes packets into the outbound queue without a copy in between.
type Encoder interface {
	AppendFrame(dst, packet []byte) []byte
}

// Sealer turns what is queued into what goes on the wire, e.g. TLS records. Its methods are called by whoever flushes, one at
// a time, and must neither block nor call the connection. An error ends the connection.
type Sealer interface {
	// Seal appends to dst what has to go out by itself, e.g. an alert, and then the wire form of plain, which may be
	// empty.
	Seal(dst, plain []byte) ([]byte, error)
	// SealEnd appends what tells the peer that nothing follows.
	SealEnd(dst []byte) ([]byte, error)
}

// State is the life of a connection.
//
//	New ──▶ Open ──▶ Draining ──▶ Lingering ──▶ Closed
//	  └───────┴───────────┴──────────────────────▲
type State uint32

const (
	// New: being registered. To Open on the loop, or to Closed where that fails.
	New State = iota
	// Open: reading and writing. To Draining with Close, or with the peer's FIN while bytes are queued; to Closed
	// with Abort, Detach, the peer's FIN, or an error.
	Open
	// Draining: what is queued is still written, input is dropped. To Lingering when the queue is empty, to Closed
	// when it is and the peer's FIN was seen, or with Abort, an error or the linger limit.
	Draining
	// Lingering: FIN sent; input is dropped, so that the kernel has no reason to answer it with a reset, which would destroy what
	// the peer has not read yet. To Closed with the peer's FIN, an error or the linger limit.
	Lingering
	// Closed: nothing more is read or written. Final; OnClose follows on the loop.
	Closed
)

func (s State) String() string {
	return [...]string{"New", "Open", "Draining", "Lingering", "Closed"}[s]
}

// Pause is a reason for not reading; a connection reads while there is none.
type Pause uint8

// Conn is one TCP connection on a loop. The zero value is for Engine.Attach. Its methods may be called from any
// goroutine, do not block, and do nothing after it closed: it never acts on a descriptor that is no longer its own.
//
// The descriptor is in one of three places. Attached: gnet reads from it and will close it. Parked, while reading is
// paused: a duplicate that is ours, which nobody reads from. Gone. It moves under mu, on the loop; who holds mu may
// write to it.
type Conn struct {
	// Immutable after OnOpen.
	loop   *Loop
	h      Handler
	local  *netip.AddrPort // shared: a server's connections have few
	remote netip.AddrPort

	// Atomic: written under mu.
	state atomic.Uint32

	// Atomic: written by the loop.
	corked   atomic.Bool // a callback is running; what it sends is flushed when it returns
	received atomic.Uint64
	lastRead atomic.Int64 // on the engine's clock

	// Atomic: written by who flushes, under mu.
	sent atomic.Uint64

	// Guarded by mu.
	mu        sync.Mutex
	fd        int32                      // -1: gone
	attaching bool                       // being enrolled into gnet
	reopened  bool                       // gnet's OnOpen came since the reattacher cleared it
	gc        gnet.Conn                  // nil unless attached
	out       outbound                   // for the socket
	plain     *bytebufferpool.ByteBuffer // with a sealer: queued and not sealed; nil: empty
	reason    error                      // the first one
	progress  int64                      // when bytes last left, or began to wait; on the engine's clock
	limit     int64                      // on the engine's clock. Open: of SetDeadline, 0 for none; then: the latest end
	pauses    Pause
	dirty     bool  // in the flusher's list
	watched   bool  // the flusher's poller tells when fd is writable
	starved   bool  // a Write found the queue full, and OnDrained was not called since
	eof       bool  // the peer's FIN was seen with bytes queued
	broken    bool  // a write failed; reading goes on, since what came before may still be there
	finished  bool  // OnClose was called, or is about to be
	sealed    bool  // h is a Sealer
	ended     bool  // SealEnd was called
	unacked   int32 // Draining, Lingering: what the kernel had not delivered when last looked

	// Owned by the flusher's list.
	nextDirty *Conn

	// Guarded by wheel.mu.
	timer timer

	// Guarded by Loop.mu.
	prev, next *Conn
}

// LocalAddr is this side.
func (c *Conn) LocalAddr() netip.AddrPort { return *c.local }

// RemoteAddr is the peer.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// State is where in its life the connection is.
func (c *Conn) State() State { return State(c.state.Load()) }

// Received counts the bytes read.
func (c *Conn) Received() uint64 { return c.received.Load() }

// Sent counts the bytes that the kernel took.
func (c *Conn) Sent() uint64 { return c.sent.Load() }

// Buffered counts the bytes that wait for the socket.
func (c *Conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queuedLocked()
}

func (c *Conn) queuedLocked() int {
	n := c.out.len()
	if c.plain != nil {
		n += len(c.plain.B)
	}
	return n
}

// Write queues b, or with enc the frame of b, which takes at most most bytes: all or nothing. b may be reused on return.
// ErrFull is followed by one OnDrained; ErrClosed is final.
func (c *Conn) Write(enc Encoder, b []byte, most int) error {
	push, err := c.enqueue(enc, b, most)
	if push {
		c.loop.flusher.push(c)
	}
	return err
}

func (c *Conn) enqueue(enc Encoder, b []byte, most int) (push bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock() // also when enc, which may be the application's, panics
	if c.State() != Open || c.broken {
		return false, ErrClosed
	}
	if n := c.queuedLocked(); n > 0 && n+most > c.loop.engine.cfg.OutboundLimit {
		c.starved = true
		return false, ErrFull
	}
	if c.sealed {
		c.plain = appendTo(c.plain, enc, b)
	} else {
		c.out.append(enc, b, most)
	}
	return c.scheduleLocked(), nil
}

// Sealed is to be called by the handler, which is then a Sealer, in OnOpen: from now on nothing goes out unsealed.
func (c *Conn) Sealed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = true
}

// FlushSealer sends what the Sealer has to send by itself. ErrFull: it would be more than is allowed to wait; the peer does
// not read what it asks for.
func (c *Conn) FlushSealer() error {
	c.mu.Lock()
	if s := c.State(); s == Closed || s == Lingering || c.broken {
		c.mu.Unlock()
		return ErrClosed
	}
	if c.out.len() > c.loop.engine.cfg.OutboundLimit+sealerSlack {
		c.mu.Unlock()
		return ErrFull
	}
	c.sealLocked(nil)
	push := c.out.buf != nil && c.scheduleLocked()
	finish := c.finishableLocked()
	c.mu.Unlock()
	if push {
		c.loop.flusher.push(c)
	}
	if finish {
		c.loop.finishLater(c)
	}
	return nil
}

// sealerSlack is what a Sealer may have waiting beyond the limit of what is queued: answers of the protocol, e.g. key updates.
const sealerSlack = 64 << 10

// sealLocked puts the wire form of plain behind what waits.
func (c *Conn) sealLocked(plain []byte) {
	if c.out.buf == nil {
		c.out.buf = bytebufferpool.Get()
	}
	b, err := c.h.(Sealer).Seal(c.out.buf.B, plain)
	c.out.buf.B = b
	if len(b) == c.out.sent {
		c.out.release()
	}
	if err != nil {
		c.abortLocked(err)
	}
}

// refillLocked seals what is queued when all that was sealed before is written, so that small packets share records, and,
// when nothing is queued and the connection is Draining, the end. It reports whether there is something to write.
func (c *Conn) refillLocked() bool {
	if c.out.buf != nil || !c.sealed {
		return c.out.buf != nil
	}
	if plain := c.plain; plain != nil {
		c.plain = nil
		c.sealLocked(plain.B)
		bytebufferpool.Put(plain)
	} else if c.State() == Draining && !c.ended {
		c.ended = true
		c.out.buf = bytebufferpool.Get()
		b, err := c.h.(Sealer).SealEnd(c.out.buf.B)
		c.out.buf.B = b
		if err != nil || len(b) == 0 {
			c.out.release()
		}
	}
	return c.out.buf != nil
}

// sealEndLocked tells the peer, as far as one write goes, that a connection ends that is aborted.
func (c *Conn) sealEndLocked() {
	if !c.sealed || c.ended || c.broken || c.fd < 0 || c.out.buf != nil {
		return
	}
	c.ended = true
	buf := bytebufferpool.Get()
	if b, err := c.h.(Sealer).SealEnd(buf.B); err == nil {
		buf.B = b
		_, _ = syscall.Write(int(c.fd), b)
	}
	bytebufferpool.Put(buf)
}

// idleLocked reports that nothing waits.
func (c *Conn) idleLocked() bool { return c.out.buf == nil && c.plain == nil }

func (c *Conn) dropQueueLocked() {
	c.out.release()
	if c.plain != nil {
		bytebufferpool.Put(c.plain)
		c.plain = nil
	}
}

// scheduleLocked decides who flushes: the callback that is running when it returns, the poller when the socket is writable,
// or, where it returns true, the flusher, into whose list the caller puts c after unlocking.
func (c *Conn) scheduleLocked() (push bool) {
	if c.dirty || c.watched || c.corked.Load() {
		return false
	}
	c.dirty = true
	return true
}

// flush writes what waits. Any goroutine.
func (c *Conn) flush() {
	c.mu.Lock()
	c.flushLocked()
	done := c.afterFlushLocked()
	c.mu.Unlock()
	done.run(c)
}

// flushLocked writes until the queue is empty or the socket takes no more; then it has the poller tell.
func (c *Conn) flushLocked() {
	for c.fd >= 0 && c.refillLocked() {
		n, err := syscall.Write(int(c.fd), c.out.bytes())
		if n > 0 {
			c.out.advance(n)
			c.sent.Add(uint64(n))
			c.loop.sent.Add(uint64(n))
			if c.progress != 0 {
				c.progress = int64(c.loop.engine.clock.now())
			}
			continue
		}
		switch err {
		case syscall.EINTR:
		case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
			c.watchLocked()
			return
		default:
			c.breakLocked(os.NewSyscallError("write", err))
			return
		}
	}
}

// watchLocked has the flusher's poller tell when the socket is writable, and the wheel when it has not been for long.
func (c *Conn) watchLocked() {
	if c.watched {
		return
	}
	if err := c.loop.flusher.watch(int(c.fd), c); err != nil {
		c.abortLocked(err)
		return
	}
	c.watched = true
	now := c.loop.engine.clock.now()
	if c.progress == 0 { // else it was full before, and only moved to another descriptor
		c.progress = int64(now)
	}
	if d := c.loop.engine.cfg.Stall; d > 0 && c.State() == Open {
		c.loop.schedule(c, now, d/progressChecks)
	}
}

// progressChecks: so many times within a stall or linger limit a congested socket is tried. The kernel calls it writable only
// when a third of its buffer is free, which on a slow link can take longer than the limit, but takes bytes before that.
const progressChecks = 4

func (c *Conn) unwatchLocked() {
	if c.watched {
		c.watched = false
		c.loop.flusher.unwatch(int(c.fd))
	}
}

// breakLocked: the socket takes no more bytes. What the peer sent before may still be there to read, so that
// reading goes on, and ends the connection; but not for longer than it may linger.
func (c *Conn) breakLocked(err error) {
	c.dropQueueLocked()
	c.unwatchLocked()
	if c.State() != Open || c.eof {
		c.abortLocked(err)
		return
	}
	c.broken = true
	if isReset(err) {
		c.setReasonLocked(err)
	}
	c.beginLingerLocked()
}

func (c *Conn) beginLingerLocked() {
	now := c.loop.engine.clock.now()
	c.progress = int64(now)
	c.limit = int64(now + lingerMost*c.loop.engine.cfg.Linger)
	c.unacked = math.MaxInt32
	c.loop.schedule(c, now, c.loop.engine.cfg.Linger/progressChecks)
}

// after is what a change under mu left to be done without it.
type after struct {
	drained, finish bool
}

// afterFlushLocked goes on with what an emptier queue allows.
func (c *Conn) afterFlushLocked() (a after) {
	if c.idleLocked() {
		c.unwatchLocked()
		if c.State() == Open && !c.broken {
			c.progress = 0
		}
		if c.State() == Draining && c.ended == c.sealed {
			c.shutdownWriteLocked()
		}
	}
	if c.starved && c.queuedLocked() <= c.loop.engine.cfg.OutboundLimit/2 {
		c.starved = false
		a.drained = true
	}
	a.finish = c.finishableLocked()
	return a
}

func (a after) run(c *Conn) {
	if a.drained {
		c.guard(c.h.OnDrained)
	}
	if a.finish {
		c.loop.finishLater(c)
	}
}

// shutdownWriteLocked sends FIN: Draining is over.
func (c *Conn) shutdownWriteLocked() {
	if c.eof {
		c.abortLocked(nil)
		return
	}
	if err := syscall.Shutdown(int(c.fd), syscall.SHUT_WR); err != nil {
		c.abortLocked(os.NewSyscallError("shutdown", err))
		return
	}
	c.state.Store(uint32(Lingering))
}

// Close writes what is queued, sends FIN, waits for the peer's and closes; for at most the linger limit. Input is dropped from now
// on. It reports whether reason is the one that counts: the first is.
func (c *Conn) Close(reason error) bool {
	c.mu.Lock()
	if c.State() != Open {
		c.mu.Unlock()
		return false
	}
	if c.broken { // there is nobody to deliver to
		c.mu.Unlock()
		return c.Abort(reason)
	}
	first := c.setReasonLocked(reason)
	c.state.Store(uint32(Draining))
	c.beginLingerLocked()
	var done after
	push := false
	if c.idleLocked() && !c.sealed {
		done = c.afterFlushLocked()
	} else {
		push = c.scheduleLocked()
	}
	c.resumeLocked(^Pause(0))
	c.mu.Unlock()
	done.run(c)
	if push {
		c.loop.flusher.push(c)
	}
	return first
}

// Abort closes at once, and drops what is queued. It reports as Close does.
func (c *Conn) Abort(reason error) bool {
	c.mu.Lock()
	first := c.State() != Closed && c.reason == nil
	c.abortLocked(reason)
	finish := c.finishableLocked()
	c.mu.Unlock()
	if finish {
		c.loop.finishLater(c)
	}
	return first
}

// abortLocked makes the connection Closed. The descriptor goes the way that it has to: gnet's on the loop, our own here.
// The caller goes on with finishableLocked.
func (c *Conn) abortLocked(reason error) {
	if c.State() == Closed {
		return
	}
	c.sealEndLocked()
	c.setReasonLocked(reason)
	c.state.Store(uint32(Closed))
	c.dropQueueLocked()
	c.unwatchLocked()
	c.starved = false
	switch {
	case c.attaching:
		// Who enrolls it sees the state.
	case c.gc != nil:
		if !c.corked.Load() {
			c.loop.closeLater(c.gc)
		}
	default:
		c.closeFDLocked()
	}
}

func (c *Conn) closeFDLocked() {
	if c.fd >= 0 {
		_ = syscall.Close(int(c.fd))
		c.fd = -1
	}
}

func (c *Conn) setReasonLocked(reason error) (first bool) {
	if c.reason != nil || reason == nil {
		return false
	}
	c.reason = reason
	return true
}

// finishableLocked reports, once, that OnClose is due.
func (c *Conn) finishableLocked() bool {
	if c.State() != Closed || c.finished || c.gc != nil || c.attaching {
		return false
	}
	c.finished = true
	return true
}

// Wake has the loop call OnWake. Wakes that were not answered yet may become one.
func (c *Conn) Wake() {
	c.loop.execute(func() { c.wakeOnLoop() })
}

func (c *Conn) wakeOnLoop() {
	if c.State() == Closed {
		return
	}
	c.corked.Store(true)
	c.guard(c.h.OnWake)
	c.loop.closeOnLoop(c.uncorkOnLoop())
}

// SetDeadline has an open connection get OnDeadline d from now; 0 takes it back.
func (c *Conn) SetDeadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != Open || c.broken {
		return
	}
	if d <= 0 {
		c.limit = 0
		return
	}
	now := c.loop.engine.clock.now()
	c.limit = int64(now + d)
	c.loop.schedule(c, now, d)
}

// onTimer looks which time limits have come, and returns in how long to look again; 0 is never. The clock's goroutine.
func (c *Conn) onTimer(now time.Duration) (again time.Duration) {
	cfg := &c.loop.engine.cfg
	consider := func(d time.Duration) {
		if again == 0 || d < again {
			again = max(d, tick)
		}
	}
	var onDeadline bool
	c.mu.Lock()
	if !c.corked.Load() {
		c.flushLocked()
	}
	switch state := c.State(); {
	case state == Draining || state == Lingering || c.broken && state == Open:
		if n := unacked(int(c.fd)); n < c.unacked { // the peer takes what the kernel has
			c.unacked, c.progress = n, int64(now)
		}
		end := min(time.Duration(c.progress)+cfg.Linger, time.Duration(c.limit))
		switch {
		case c.broken && c.gc == nil:
			// Paused: the application has not read what is left.
			consider(cfg.Linger)
		case now >= end:
			c.abortLocked(ErrLinger)
		default:
			consider(min(end-now, cfg.Linger/progressChecks))
		}
	case state == Open:
		if cfg.Stall > 0 && c.watched {
			if end := time.Duration(c.progress) + cfg.Stall; now >= end {
				c.abortLocked(ErrStall)
			} else {
				consider(min(end-now, cfg.Stall/progressChecks))
			}
		}
		if cfg.Idle > 0 {
			if c.pauses != 0 || c.gc == nil {
				consider(cfg.Idle)
			} else if end := time.Duration(c.lastRead.Load()) + cfg.Idle; now >= end {
				c.abortLocked(ErrIdle)
			} else {
				consider(end - now)
			}
		}
		if c.limit != 0 {
			if end := time.Duration(c.limit); now >= end {
				c.limit = 0
				onDeadline = true
			} else {
				consider(end - now)
			}
		}
	}
	done := c.afterFlushLocked()
	if c.State() == Closed {
		again = 0
	}
	c.mu.Unlock()
	if onDeadline {
		c.guard(c.h.OnDeadline)
	}
	done.run(c)
	return again
}

// guard runs a callback and contains its panic to this connection.
func (c *Conn) guard(callback func()) {
	defer c.contain()
	callback()
}

func (c *Conn) contain() {
	if v := recover(); v != nil {
		p := &PanicError{Value: v, Stack: debug.Stack()}
		c.h.OnPanic(p)
		c.Abort(p)
	}
}

// uncorkOnLoop ends a callback: flushes what it sent, and does what it or others asked for meanwhile. What it returns, if
// anything, the caller has gnet close.
func (c *Conn) uncorkOnLoop() gnet.Conn {
	c.mu.Lock()
	c.corked.Store(false)
	if !c.watched {
		c.flushLocked()
	}
	done := c.afterFlushLocked()
	leaving := c.settleOnLoopLocked()
	done.finish = done.finish || c.finishableLocked()
	c.mu.Unlock()
	done.run(c)
	return leaving
}

// settleOnLoopLocked brings the descriptor to where the state and the pauses want it. It returns the gnet.Conn that gnet shall
// close, if any.
func (c *Conn) settleOnLoopLocked() gnet.Conn {
	switch {
	case c.gc == nil:
		return nil
	case c.State() == Closed:
		return c.gc
	case c.pauses != 0 && c.State() == Open:
		return c.parkOnLoopLocked()
	}
	return nil
}

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
