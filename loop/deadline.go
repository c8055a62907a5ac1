package loop

import (
	"time"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// SetDeadline implements link.Link.
func (c *Conn) SetDeadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != link.Open || c.broken {
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
	case state == link.Draining || state == link.Lingering || c.broken && state == link.Open:
		if n := tcp.Unacked(int(c.fd)); n < c.unacked { // the peer takes what the kernel has
			c.unacked, c.progress = n, int64(now)
		}
		end := min(time.Duration(c.progress)+cfg.Linger, time.Duration(c.limit))
		switch {
		case c.broken && c.gc == nil:
			// Paused: the application has not read what is left.
			consider(cfg.Linger)
		case now >= end:
			c.abortLocked(link.ErrLinger)
		default:
			consider(min(end-now, cfg.Linger/link.ProgressChecks))
		}
	case state == link.Open:
		if c.pauses != 0 && c.gc != nil { // there was no descriptor to park it with
			c.loop.execute(c.parkOnLoop)
		}
		if cfg.Stall > 0 && c.watched {
			if end := time.Duration(c.progress) + cfg.Stall; now >= end {
				c.abortLocked(link.ErrStall)
			} else {
				consider(min(end-now, cfg.Stall/link.ProgressChecks))
			}
		}
		if cfg.Idle > 0 {
			if c.pauses != 0 || c.gc == nil {
				consider(cfg.Idle)
			} else if end := time.Duration(c.lastRead.Load()) + cfg.Idle; now >= end {
				c.abortLocked(link.ErrIdle)
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
	if c.State() == link.Closed {
		again = 0
	}
	c.mu.Unlock()
	if onDeadline {
		c.guard(c.h.OnDeadline)
	}
	done.run(c)
	return again
}
