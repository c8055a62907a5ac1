package stdnet

import (
	"math"
	"net"
	"time"

	"gridstream/loop/link"
)

// Close implements link.Link.
func (c *conn) Close(reason error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeLocked(reason)
}

func (c *conn) closeLocked(reason error) (first bool) {
	if c.State() != link.Open {
		return false
	}
	if d := c.detaching; d != nil {
		if d.close == nil {
			d.close = reason
		}
		return false
	}
	first = c.setReasonLocked(reason)
	if c.broken { // there is nobody to deliver to
		c.abortLocked(nil)
		return first
	}
	c.drainLocked()
	return first
}

// drainLocked makes the connection Draining.
func (c *conn) drainLocked() {
	c.state.Store(uint32(link.Draining))
	c.beginLingerLocked()
	c.pauses = 0
	c.interruptReadLocked()
	c.interruptWriteLocked()
	c.writeLocked()
}

// eofLocked: the peer sends nothing more, but may still read what is queued for it.
func (c *conn) eofLocked(reason error) {
	c.eof = true
	c.setReasonLocked(reason)
	if c.broken || c.queuedLocked() == 0 {
		c.abortLocked(nil)
		return
	}
	c.drainLocked()
}

// Abort implements link.Link.
func (c *conn) Abort(reason error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.State() != link.Closed && c.reason == nil
	c.abortLocked(reason)
	return first
}

// abortLocked makes the connection Closed; the reader does the rest.
func (c *conn) abortLocked(reason error) {
	if c.State() == link.Closed {
		return
	}
	c.setReasonLocked(reason)
	c.state.Store(uint32(link.Closed))
	c.dropQueueLocked()
	c.starved = false
	c.interruptReadLocked()
	c.interruptWriteLocked()
}

func (c *conn) setReasonLocked(reason error) (first bool) {
	if c.reason != nil || reason == nil {
		return false
	}
	c.reason = reason
	return true
}

func (c *conn) beginLingerLocked() {
	c.progress = time.Now()
	c.limit = c.progress.Add(link.LingerMost * c.t.cfg.Linger)
	c.unacked = math.MaxInt32
}

// lingerLeftLocked is how long a closing connection may go on as things are.
func (c *conn) lingerLeftLocked(now time.Time) time.Duration {
	if n := c.sock.unacked(); n < c.unacked { // the peer takes what the kernel has
		c.unacked, c.progress = n, now
	}
	return min(c.progress.Add(c.t.cfg.Linger).Sub(now), c.limit.Sub(now))
}

// detaching is a Detach under way.
type detaching struct {
	// Immutable.
	reason error
	over   chan struct{} // closed when the reader is done

	// Written before over is closed.
	done bool // the socket is the caller's

	// Guarded by conn.mu.
	close error // of a Close meanwhile, for when it fails
}

// Detach implements link.Link. What is queued is written before it returns.
func (c *conn) Detach(reason error) (net.Conn, []byte, error) {
	c.mu.Lock()
	if c.State() != link.Open || c.broken || c.detaching != nil {
		c.mu.Unlock()
		return nil, nil, link.ErrClosed
	}
	d := &detaching{reason: reason, over: make(chan struct{})}
	c.detaching = d
	c.interruptReadLocked()
	c.mu.Unlock()
	<-d.over
	switch {
	case !d.done:
		return nil, nil, link.ErrClosed
	case c.tls != nil:
		return c.tls, nil, nil
	}
	return c.sock.TCPConn, nil, nil
}
