package loop

import (
	"net"
	"os"
	"syscall"
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
		return d.nc, d.queued, d.err
	}
}

type detached struct {
	nc     net.Conn
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
		short := c.short
		c.mu.Unlock()
		if short { // that may last
			return detached{err: os.NewSyscallError("dup", syscall.EMFILE)}
		}
		return detached{again: true}
	}
	var nc *net.TCPConn
	var leaving gnet.Conn
	err := c.loop.spare.lend(func() (err error) {
		if nc, err = c.loop.engine.fileConn(int(c.fd)); err != nil {
			return err
		}
		c.unwatchLocked()
		if leaving = c.gc; leaving == nil {
			c.closeFDLocked()
		}
		c.gc, c.fd = nil, -1
		return nil
	})
	if err != nil { // it stays
		c.mu.Unlock()
		return detached{err: err}
	}
	if c.sealed {
		var plain []byte
		if c.plain != nil {
			plain = c.plain.B
		}
		c.sealLocked(plain)
	}
	d = detached{nc: nc, queued: append([]byte(nil), c.out.bytes()...)}
	c.dropQueueLocked()
	c.setReasonLocked(reason)
	c.state.Store(uint32(link.Closed))
	c.finished = true
	c.mu.Unlock()
	c.loop.closeOnLoop(leaving)
	c.loop.spare.refill() // with what gnet closed, if it was lent
	c.loop.finishOnLoop(c)
	return d
}
