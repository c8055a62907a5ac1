package loop

import (
	"math"
	"os"
	"syscall"

	"gridstream/loop/link"
)

func (c *Conn) beginLingerLocked() {
	now := c.loop.engine.clock.now()
	c.progress = int64(now)
	c.limit = int64(now + link.LingerMost*c.loop.engine.cfg.Linger)
	c.unacked = math.MaxInt32
	c.loop.schedule(c, now, c.loop.engine.cfg.Linger/link.ProgressChecks)
}

// droppedUnit rounds up, so that a peer gains nothing by small writes; it makes link.LingerInput fit.
const droppedUnit = 256

// dropOnLoop counts n bytes of input that a closing connection drops, and ends one whose peer will not stop.
func (c *Conn) dropOnLoop(n int) {
	dropped := int(c.dropped) + (n+droppedUnit-1)/droppedUnit
	if dropped < link.LingerInput/droppedUnit {
		c.dropped = uint16(dropped)
		return
	}
	c.mu.Lock()
	c.abortLocked(link.ErrLingerInput)
	c.mu.Unlock()
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
	c.state.Store(uint32(link.Lingering))
}

// Close implements link.Link.
func (c *Conn) Close(reason error) bool {
	c.mu.Lock()
	if c.State() != link.Open {
		c.mu.Unlock()
		return false
	}
	if c.broken { // there is nobody to deliver to
		c.mu.Unlock()
		return c.Abort(reason)
	}
	first := c.setReasonLocked(reason)
	c.state.Store(uint32(link.Draining))
	c.beginLingerLocked()
	var done after
	push := false
	if c.idleLocked() && !c.sealed {
		done = c.afterFlushLocked()
	} else {
		push = c.scheduleLocked()
	}
	c.resumeLocked(^link.Pause(0))
	c.mu.Unlock()
	done.run(c)
	if push {
		c.loop.flusher.push(c)
	}
	return first
}

// Abort implements link.Link.
func (c *Conn) Abort(reason error) bool {
	c.mu.Lock()
	first := c.State() != link.Closed && c.reason == nil
	c.abortLocked(reason)
	done := after{finish: c.finishableLocked()}
	c.mu.Unlock()
	done.run(c)
	return first
}

// abortLocked makes the connection Closed. The descriptor goes the way that it has to: gnet's on the loop, our own here.
// The caller goes on with finishableLocked.
func (c *Conn) abortLocked(reason error) {
	if c.State() == link.Closed {
		return
	}
	c.sealEndLocked()
	c.setReasonLocked(reason)
	c.state.Store(uint32(link.Closed))
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
	if c.State() != link.Closed || c.finished || c.gc != nil || c.attaching {
		return false
	}
	c.finished = true
	return true
}
