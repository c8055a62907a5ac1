package loop

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// Conn is one TCP connection on a loop.
//
// The descriptor is in one of three places. Attached: gnet reads from it and will close it. Parked, while reading is
// paused: a duplicate that is ours, which nobody reads from. Gone. It moves under mu, on the loop; who holds mu may
// write to it.
type Conn struct {
	// Immutable after OnOpen.
	loop   *Loop
	h      link.Handler
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
	pausedAt  uint16                     // what was received when it was paused, in units of droppedUnit, modulo 2¹⁶
	gc        gnet.Conn                  // nil unless attached
	out       outbound                   // for the socket
	plain     *bytebufferpool.ByteBuffer // with a sealer: queued and not sealed; nil: empty
	reason    error                      // the first one
	progress  int64                      // when bytes last left, or began to wait; on the engine's clock
	limit     int64                      // on the engine's clock. Open: of SetDeadline, 0 for none; then: the latest end
	pauses    link.Pause
	dirty     bool   // in the flusher's list
	watched   bool   // congestion tells when fd is writable
	starved   bool   // a Write found the queue full, and OnDrained was not called since
	eof       bool   // the peer's FIN was seen with bytes queued
	broken    bool   // a write failed; reading goes on, since what came before may still be there
	finished  bool   // OnClose was called, or is about to be
	sealed    bool   // h is a Sealer
	ended     bool   // SealEnd was called
	short     bool   // the last attempt to enroll it found no descriptors
	dropped   uint16 // the loop's: input since Draining began, in units of droppedUnit
	unacked   int32  // Draining, Lingering: what the kernel had not delivered when last looked

	// Owned by the flusher's list.
	nextDirty *Conn

	// Guarded by wheel.mu.
	timer timer

	// Guarded by Loop.mu.
	prev, next *Conn
}

var _ link.Sealing = (*Conn)(nil)

// LocalAddr implements link.Link.
func (c *Conn) LocalAddr() netip.AddrPort { return *c.local }

// RemoteAddr implements link.Link.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// SetRemoteAddr implements link.Link.
func (c *Conn) SetRemoteAddr(a netip.AddrPort) {
	c.loop.mu.Lock() // Loop.inCallback looks
	defer c.loop.mu.Unlock()
	c.remote = a
}

// State implements link.Link.
func (c *Conn) State() link.State { return link.State(c.state.Load()) }

// Received implements link.Link.
func (c *Conn) Received() uint64 { return c.received.Load() }

// Sent implements link.Link.
func (c *Conn) Sent() uint64 { return c.sent.Load() }

// Wake implements link.Sealing.
func (c *Conn) Wake() {
	c.loop.execute(func() { c.wakeOnLoop() })
}

func (c *Conn) wakeOnLoop() {
	if c.State() == link.Closed {
		return
	}
	c.corked.Store(true)
	c.guard(c.h.OnWake)
	c.loop.closeOnLoop(c.uncorkOnLoop())
}

// uncorkOnLoop ends a callback: flushes what it sent, and does what it or others asked for meanwhile. What it returns, if
// anything, the caller has gnet close.
func (c *Conn) uncorkOnLoop() gnet.Conn {
	if !c.loop.busy.Load() { // the line is shared with other cores
		c.loop.busy.Store(true)
	}
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
	case c.State() == link.Closed:
		return c.gc
	case c.pauses != 0 && c.State() == link.Open:
		return c.parkOnLoopLocked()
	}
	return nil
}
