package stdnet

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// Buffered implements link.Link.
func (c *conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queuedLocked()
}

func (c *conn) queuedLocked() int { return c.waitingLocked() + c.inFlight }

// waitingLocked counts the bytes that the limit is for: those that no writer has. What the writer has may be with the peer already, and
// answered, before the writer gets to say so.
func (c *conn) waitingLocked() int {
	if c.out == nil {
		return 0
	}
	return len(c.out.B)
}

// Write implements link.Link.
func (c *conn) Write(enc link.Encoder, b []byte, most int) error {
	c.mu.Lock()
	defer c.mu.Unlock() // also when enc, which may be the application's, panics
	if c.State() != link.Open || c.broken || c.detaching != nil {
		return link.ErrClosed
	}
	if n := c.waitingLocked(); n > 0 && n+most > c.t.cfg.OutboundLimit {
		c.starved = true
		return link.ErrFull
	}
	out := c.out
	if out == nil {
		out = bytebufferpool.Get()
	}
	if enc == nil {
		out.B = append(out.B, b...)
	} else {
		out.B = enc.AppendFrame(out.B, b)
	}
	c.out = out
	c.writeLocked()
	return nil
}

// writeLocked starts a writer, if there is something to do for one.
func (c *conn) writeLocked() {
	if c.writing || c.corked || c.out == nil && (c.State() != link.Draining || c.ended) {
		return
	}
	c.writing = true
	go c.write()
}

// write is the writer: it writes all that is queued, what comes meanwhile with one call for many packets, and goes.
func (c *conn) write() {
	for {
		out, last := c.next()
		switch {
		case out != nil:
			c.tellDrained()
			err := c.writeAll(out.B)
			bytebufferpool.Put(out)
			c.wrote(err)
			if err != nil {
				c.tellDrained()
			}
		case last:
			c.end()
		default:
			return
		}
	}
}

func (c *conn) writeAll(b []byte) (err error) {
	if c.tls != nil {
		_, err = c.tls.Write(b)
	} else {
		_, err = c.sock.Write(b)
	}
	return err
}

// next takes what is queued. last: nothing is, and the connection is Draining. Else there is no writer any more.
func (c *conn) next() (out *bytebufferpool.ByteBuffer, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if out = c.out; out != nil {
		c.out = nil
		c.inFlight = len(out.B)
		return out, false
	}
	if c.State() == link.Draining && !c.ended {
		c.ended = true
		return nil, true
	}
	c.writing = false
	c.changed.Broadcast()
	return nil, false
}

// wrote tells that what next took is written, or why it is not.
func (c *conn) wrote(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight = 0
	if err != nil { // crypto/tls may have kept it from socket.Write
		c.breakLocked(err)
	}
}

// tellDrained tells who found the queue full that next took it, or that nothing is taken any more.
func (c *conn) tellDrained() {
	c.mu.Lock()
	starved := c.starved
	c.starved = false
	c.mu.Unlock()
	if starved {
		c.guard(c.h.OnDrained)
	}
}

// end tells the peer that nothing follows.
func (c *conn) end() {
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	err := c.sock.CloseWrite()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.State() != link.Draining:
	case err != nil || c.eof:
		c.abortLocked(err)
	default:
		c.state.Store(uint32(link.Lingering))
		c.changed.Broadcast()
	}
}

// armWrite sets the deadline of the next write, after which it looks again; the error is of a limit that is over. moved: the
// kernel took bytes since, or this is the first.
func (c *conn) armWrite(moved bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if moved {
		c.progress = now
	}
	var limit, left time.Duration
	switch c.State() {
	case link.Closed:
		return link.ErrClosed
	case link.Draining, link.Lingering:
		limit = c.t.cfg.Linger
		if left = c.lingerLeftLocked(now); left <= 0 {
			return link.ErrLinger
		}
	default:
		if limit = c.t.cfg.Stall; limit == 0 {
			if !c.writeBy.IsZero() {
				c.writeBy = time.Time{}
				_ = c.sock.TCPConn.SetWriteDeadline(time.Time{})
			}
			return nil
		}
		if left = limit - now.Sub(c.progress); left <= 0 {
			return link.ErrStall
		}
	}
	check := min(left, limit/link.ProgressChecks)
	if c.writeBy.Sub(now) < check/2 || c.writeBy.Sub(now) > check { // else it does as it is
		c.writeBy = now.Add(check)
		_ = c.sock.TCPConn.SetWriteDeadline(c.writeBy)
	}
	return nil
}

func (c *conn) writeFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	c.breakLocked(err)
}

// breakLocked: the socket takes no more bytes. What the peer sent before may still be there to read, so that reading goes on, and
// ends the connection; but not for longer than it may linger.
func (c *conn) breakLocked(err error) {
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call
	}
	c.dropQueueLocked()
	if c.tls == nil && c.reason == io.EOF && errors.Is(err, syscall.ECONNRESET) { // with TLS that is a close_notify
		c.reason = err // the system tells of a reset once: who reads behind the write that was told finds the end
	}
	switch {
	case c.State() == link.Closed || c.broken:
	case c.State() != link.Open || errors.Is(err, link.ErrStall):
		c.abortLocked(err)
	default:
		c.broken = true
		if errors.Is(err, syscall.ECONNRESET) {
			c.setReasonLocked(err)
		}
		c.beginLingerLocked()
		c.limit = time.Now().Add(c.t.cfg.Linger)
		c.interruptReadLocked()
	}
}

func (c *conn) dropQueueLocked() {
	if c.out != nil {
		bytebufferpool.Put(c.out)
		c.out = nil
	}
}
