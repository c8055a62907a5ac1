package loop

import (
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// Detach takes an open connection out of the engine: its descriptor as a net.Conn, and the bytes that were queued
// and are still to be written. The connection ends with reason. It blocks until the loop got to it, and
// must not be called on a loop.
func (c *Conn) Detach(reason error) (*net.TCPConn, []byte, error) {
	for {
		answer := make(chan detached, 1)
		if !c.loop.execute(func() { answer <- c.detachOnLoop(reason) }) {
			return nil, nil, ErrEngineClosed
		}
		var d detached
		select {
		case d = <-answer:
		case <-c.loop.engine.ended: // the task has run by now, or never will
			select {
			case d = <-answer:
			default:
				return nil, nil, ErrEngineClosed
			}
		}
		if d.again {
			// Being enrolled, which takes the loop and the reattacher a moment.
			time.Sleep(time.Millisecond)
			continue
		}
		if d.err != nil {
			return nil, nil, d.err
		}
		nc, err := c.loop.engine.fileConn(d.fd)
		return nc, d.queued, err
	}
}

type detached struct {
	fd     int
	queued []byte
	again  bool
	err    error
}

func (c *Conn) detachOnLoop(reason error) (d detached) {
	c.mu.Lock()
	if c.State() != Open || c.broken {
		c.mu.Unlock()
		return detached{err: ErrClosed}
	}
	if c.attaching {
		c.mu.Unlock()
		return detached{again: true}
	}
	var leaving gnet.Conn
	if c.gc != nil {
		var ok bool
		if leaving, ok = c.leaveOnLoopLocked(); !ok {
			err := c.reason
			c.mu.Unlock()
			c.loop.closeOnLoop(leaving)
			return detached{err: err}
		}
	}
	c.unwatchLocked()
	if c.sealed {
		var plain []byte
		if c.plain != nil {
			plain = c.plain.B
		}
		c.sealLocked(plain)
	}
	d = detached{fd: int(c.fd), queued: append([]byte(nil), c.out.bytes()...)}
	c.dropQueueLocked()
	c.fd = -1
	c.setReasonLocked(reason)
	c.state.Store(uint32(Closed))
	c.finished = true
	c.mu.Unlock()
	c.loop.closeOnLoop(leaving)
	c.loop.finishOnLoop(c)
	return d
}
