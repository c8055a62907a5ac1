package loop

import (
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"

	"gridstream/loop/link"
)

// Detach implements link.Link.
func (c *Conn) Detach(reason error) (net.Conn, []byte, error) {
	for {
		answer := make(chan detached, 1)
		if !c.loop.execute(func() { answer <- c.detachOnLoop(reason) }) {
			return nil, nil, link.ErrTransportClosed
		}
		var d detached
		select {
		case d = <-answer:
		case <-c.loop.engine.ended: // the task has run by now, or never will
			select {
			case d = <-answer:
			default:
				return nil, nil, link.ErrTransportClosed
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
		if err != nil {
			return nil, nil, err
		}
		return nc, d.queued, nil
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
	if c.State() != link.Open || c.broken {
		c.mu.Unlock()
		return detached{err: link.ErrClosed}
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
	c.state.Store(uint32(link.Closed))
	c.finished = true
	c.mu.Unlock()
	c.loop.closeOnLoop(leaving)
	c.loop.finishOnLoop(c)
	return d
}
