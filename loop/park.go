package loop

import (
	"os"

	"github.com/panjf2000/gnet/v2"

	"gridstream/loop/link"
)

// gnet reads whenever there is something. To pause, the descriptor is duplicated, gnet closes its copy (the kernel's
// socket lives on, and sends no FIN), and the duplicate is parked: its window closes when the kernel's buffer is
// full. To resume, it is enrolled again, into the same loop, by the loop's reattacher, since enrolling waits for the loop.

// Pause implements link.Link.
func (c *Conn) Pause(p link.Pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != link.Open {
		return
	}
	if c.pauses == 0 {
		c.loop.paused.Add(1)
		c.pausedAt = uint16(c.received.Load() / droppedUnit)
	}
	c.pauses |= p
	if c.gc != nil && !c.corked.Load() {
		c.loop.execute(func() { c.parkOnLoop() })
	}
}

// Resume implements link.Link.
func (c *Conn) Resume(p link.Pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resumeLocked(p)
}

// Paused implements link.Link.
func (c *Conn) Paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pauses != 0
}

func (c *Conn) resumeLocked(p link.Pause) {
	c.pauses &^= p
	if c.pauses != 0 || c.gc != nil || c.fd < 0 || c.attaching || c.eof || c.State() == link.Closed {
		return
	}
	c.attaching = true
	c.loop.reattacher.push(c)
}

// parkOnLoop parks on behalf of a Pause that came from another goroutine.
func (c *Conn) parkOnLoop() {
	c.mu.Lock()
	leaving := c.settleOnLoopLocked()
	done := after{finish: c.finishableLocked()}
	c.mu.Unlock()
	c.loop.closeOnLoop(leaving)
	done.run(c)
}

// unparkedMost is what a connection may receive, in bytes, that is paused and cannot be parked.
const unparkedMost = 1 << 20

// parkOnLoopLocked moves an attached connection to a duplicate of its descriptor, and returns the gnet.Conn that gnet shall close.
// Without a descriptor it is tried again with what is read next, and by onTimer.
func (c *Conn) parkOnLoopLocked() gnet.Conn {
	fd, err := c.loop.dup(int(c.fd))
	if err != nil {
		if uint16(c.received.Load()/droppedUnit)-c.pausedAt > unparkedMost/droppedUnit {
			c.abortLocked(os.NewSyscallError("dup", err))
			return c.gc
		}
		c.loop.schedule(c, c.loop.engine.clock.now(), probeEvery)
		return nil
	}
	leaving := c.gc
	c.unwatchLocked()
	c.gc, c.fd = nil, int32(fd)
	if !c.idleLocked() {
		c.watchLocked()
	}
	return leaving
}

// reattachOnLoopLocked is OnOpen of a connection that was parked.
func (c *Conn) reattachOnLoopLocked(gc gnet.Conn) {
	c.unwatchLocked()
	c.closeFDLocked()
	c.gc, c.fd = gc, int32(gc.Fd())
	c.lastRead.Store(int64(c.loop.engine.clock.now()))
	if c.State() != link.Closed {
		c.flushLocked()
	}
}
