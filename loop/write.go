package loop

import (
	"errors"
	"os"
	"syscall"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// Buffered implements link.Link.
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

// Write implements link.Link.
func (c *Conn) Write(enc link.Encoder, b []byte, most int) error {
	var done after
	defer func() { done.run(c) }() // also when enc, which may be the application's, panics
	push, err := c.enqueue(enc, b, most, &done)
	if push {
		c.loop.flusher.push(c)
	}
	return err
}

func (c *Conn) enqueue(enc link.Encoder, b []byte, most int, done *after) (push bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != link.Open || c.broken {
		return false, link.ErrClosed
	}
	if c.fullLocked(most) && !c.watched { // nobody has come to write yet: there may be room in the socket
		c.flushLocked()
		*done = c.afterFlushLocked()
		if c.State() != link.Open || c.broken {
			return false, link.ErrClosed
		}
	}
	if c.fullLocked(most) {
		c.starved = true
		return false, link.ErrFull
	}
	if c.sealed {
		c.plain = appendTo(c.plain, enc, b)
	} else {
		c.out.append(enc, b, most)
	}
	return c.scheduleLocked(), nil
}

// fullLocked reports that there is no room for most bytes more. Where nothing is queued there always is.
func (c *Conn) fullLocked(most int) bool {
	n := c.queuedLocked()
	return n > 0 && n+most > c.loop.engine.cfg.OutboundLimit
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

// watchLocked has congestion tell when the socket is writable, and the wheel when it has not been for long.
func (c *Conn) watchLocked() {
	if c.watched {
		return
	}
	if err := c.loop.congestion.watch(int(c.fd), c); err != nil {
		c.abortLocked(err)
		return
	}
	c.watched = true
	now := c.loop.engine.clock.now()
	if c.progress == 0 { // else it was full before, and only moved to another descriptor
		c.progress = int64(now)
	}
	if d := c.loop.engine.cfg.Stall; d > 0 && c.State() == link.Open {
		c.loop.schedule(c, now, d/link.ProgressChecks)
	}
}

func (c *Conn) unwatchLocked() {
	if c.watched {
		c.watched = false
		c.loop.congestion.unwatch(int(c.fd))
	}
}

// breakLocked: the socket takes no more bytes. What the peer sent before may still be there to read, so that
// reading goes on, and ends the connection; but not for longer than it may linger.
func (c *Conn) breakLocked(err error) {
	c.dropQueueLocked()
	c.unwatchLocked()
	if c.State() != link.Open || c.eof {
		c.abortLocked(err)
		return
	}
	c.broken = true
	if isReset(err) {
		c.setReasonLocked(err)
	}
	c.beginLingerLocked()
}

// after is what a change under mu left to be done without it.
type after struct {
	drained, finish bool
}

// afterFlushLocked goes on with what an emptier queue allows.
func (c *Conn) afterFlushLocked() (a after) {
	if c.idleLocked() {
		c.unwatchLocked()
		if c.State() == link.Open && !c.broken {
			c.progress = 0
		}
		if c.State() == link.Draining && c.ended == c.sealed {
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

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
