package stdnet

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"gridstream/driver"
	"gridstream/loop/link"
	"gridstream/tlsadapter"
)

// readSize is how much is read at once: an idle connection keeps a buffer of it.
const readSize = 4 << 10

// read is the reader: the life of a connection, from OnOpen on.
func (c *conn) read() {
	buf := make([]byte, readSize)
	for c.mayRead() {
		if c.tls != nil && !c.shaken.Load() {
			c.handshake()
			continue
		}
		n, err := c.readOnce(buf)
		if n > 0 {
			if c.t.cfg.Idle > 0 {
				c.lastRead.Store(time.Now().UnixNano())
			}
			c.deliver(buf[:n])
		}
		if err != nil {
			c.readFailed(err)
		}
	}
	c.discard(buf)
	c.finish()
}

func (c *conn) readOnce(buf []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(buf)
	}
	return c.sock.Read(buf)
}

// handshake does the handshake, or ends the connection.
func (c *conn) handshake() {
	err := error(nil)
	c.guard(func() { err = c.tls.Handshake() }) // a callback of the tls.Config may panic
	if err != nil {
		c.Close(tlsadapter.Describe("handshake", err))
	}
	if c.State() == link.Open {
		c.shaken.Store(true)
		c.callback(c.h.OnWake)
	}
}

// handshakeGoesOn reports that what interrupted a read was a pause, which the handshake does not have, since to crypto/tls any
// error then is the end.
func (c *conn) handshakeGoesOn() bool {
	if c.tls == nil || c.shaken.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != link.Open {
		return false
	}
	_ = c.sock.SetReadDeadline(time.Time{})
	return true
}

// mayRead waits for the reasons not to read to be gone; false when there is nothing to read any more.
func (c *conn) mayRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	paused := false
	for c.pauses != 0 && c.State() == link.Open && c.detaching == nil {
		paused = true
		c.changed.Wait()
	}
	if c.State() != link.Open || c.detaching != nil {
		return false
	}
	if paused {
		c.lastRead.Store(time.Now().UnixNano())
	}
	if c.rearm {
		c.rearm = false
		var by time.Time
		if c.t.cfg.Idle > 0 {
			by = time.Unix(0, c.lastRead.Load()).Add(c.t.cfg.Idle)
		}
		if c.broken && (by.IsZero() || c.limit.Before(by)) {
			by = c.limit
		}
		_ = c.sock.SetReadDeadline(by)
	}
	return true
}

// readFailed tells what the error of a read means.
func (c *conn) readFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != link.Open || c.detaching != nil {
		return // who did that interrupted the read, or does not mind
	}
	if isTimeout(err) {
		c.rearm = true
		now := time.Now()
		switch idle := c.t.cfg.Idle; {
		case c.pauses != 0:
		case c.broken && !now.Before(c.limit):
			c.abortLocked(link.ErrLinger)
		case idle > 0 && now.Sub(time.Unix(0, c.lastRead.Load())) >= idle:
			c.abortLocked(link.ErrIdle)
		}
		return
	}
	switch reason, orderly := c.reasonOf(err); {
	case c.tls != nil && !isSystem(reason) && !errors.Is(err, io.ErrUnexpectedEOF):
		c.closeLocked(reason) // close_notify or a broken protocol: the peer gets what is queued, an alert, and ours
	case orderly:
		c.eofLocked(reason)
	default:
		c.abortLocked(reason)
	}
}

// reasonOf is the reason for which a failed read ends the connection. orderly: the peer may still read.
func (c *conn) reasonOf(err error) (reason error, orderly bool) {
	var call *os.SyscallError
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF, true
	case errors.As(err, &call):
		return call, false
	case c.tls == nil:
		return err, false
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = tlsadapter.ErrTruncated
	default:
		err = tlsadapter.Describe("read", err)
	}
	return &driver.Error{Op: "connection", Code: driver.ErrReceive, Address: c.remote, Err: err}, true
}

func isSystem(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// discard drops the input of a connection that is closing, until the peer's FIN, so that the kernel has no reason to answer it
// with a reset, which would destroy what the peer has not read yet.
func (c *conn) discard(buf []byte) {
	for c.mayDiscard() {
		_, err := c.sock.Read(buf)
		if err == nil || isTimeout(err) {
			continue
		}
		c.mu.Lock()
		if errors.Is(err, io.EOF) {
			c.eof = true
			if c.State() == link.Lingering {
				c.abortLocked(nil)
			}
		} else {
			c.abortLocked(err)
		}
		c.mu.Unlock()
	}
}

// mayDiscard sets the deadline for the next read; false when there is nothing to wait for.
func (c *conn) mayDiscard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.detaching != nil || c.eof || c.State() == link.Closed {
		return false
	}
	now := time.Now()
	left := c.lingerLeftLocked(now)
	if left <= 0 {
		c.abortLocked(link.ErrLinger)
		return false
	}
	_ = c.sock.SetReadDeadline(now.Add(min(left, c.t.cfg.Linger/link.ProgressChecks)))
	return true
}

// finish waits for the writer and ends the connection.
func (c *conn) finish() {
	c.mu.Lock()
	for c.writing || c.State() != link.Closed && (c.detaching == nil || c.out != nil) {
		c.changed.Wait()
	}
	c.detached = c.State() != link.Closed && !c.broken
	c.state.Store(uint32(link.Closed))
	if c.deadline != nil {
		c.deadline.Stop()
	}
	reason, ended := c.reason, c.ended || c.broken
	c.mu.Unlock()
	if c.detached {
		c.sock.free.Store(true)
		_ = c.sock.SetDeadline(time.Time{})
	} else {
		if c.tls != nil && !ended {
			c.sendCloseNotify()
		}
		c.sock.Close()
	}
	c.guard(func() { c.h.OnClose(reason) })
	if c.detaching != nil {
		close(c.detaching)
	}
	c.t.leave(c)
}

// sendCloseNotify tells the peer of a connection that ends that is aborted, if it takes that at once.
func (c *conn) sendCloseNotify() {
	const atOnce = 10 * time.Millisecond
	c.sock.free.Store(true)
	c.sock.last = time.Now().Add(atOnce) // crypto/tls would wait for five seconds
	_ = c.tls.CloseWrite()
}

var _ net.Conn = (*socket)(nil)
