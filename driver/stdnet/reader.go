package stdnet

import (
	"errors"
	"io"
	"os"
	"time"

	"gridstream/driver"
	"gridstream/loop/link"
	"gridstream/tlsadapter"
)

// readSize is how much is read at once: an idle connection keeps a buffer of it.
const readSize = 4 << 10

// run is the reader: the life of a connection.
func (c *conn) run(opened chan<- struct{}) {
	c.callback(c.h.OnOpen)
	close(opened)
	buf := make([]byte, readSize)
	for {
		c.readAll(buf)
		if !c.detachFails() {
			break
		}
	}
	c.discard(buf)
	c.finish()
}

// readAll reads until there is a reason not to.
func (c *conn) readAll(buf []byte) {
	for c.mayRead() {
		if c.tls != nil && !c.shaken.Load() {
			c.handshake()
			continue
		}
		n, err := c.readOnce(buf)
		if n > 0 {
			c.deliver(buf[:n])
		}
		if err != nil {
			c.readFailed(err)
		}
	}
}

// detachFails waits, where a Detach is under way, until what is queued is written. Where that cannot be the connection
// stays, and reading goes on.
func (c *conn) detachFails() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.detaching != nil && c.State() == link.Open && (c.writing || c.out != nil) {
		c.changed.Wait()
	}
	if c.detaching == nil || c.State() != link.Open || !c.broken {
		return false
	}
	d := c.detaching
	c.detaching = nil
	close(d.over)
	if d.close != nil {
		c.closeLocked(d.close)
	}
	return true
}

func (c *conn) readOnce(buf []byte) (n int, err error) {
	defer link.Contain(c, c.h) // with TLS it calls, e.g., a ClientSessionCache of the application's
	if c.tls != nil {
		return c.tls.Read(buf)
	}
	return c.sock.Read(buf)
}

// handshake does the handshake, or ends the connection.
func (c *conn) handshake() {
	err := tlsadapter.ErrRenegotiation
	if !c.renegotiates {
		err = nil
		c.guard(func() { err = c.tls.Handshake() }) // a callback of the tls.Config may panic
	}
	switch {
	case err == nil:
	case c.sock.fin:
		c.Close(tlsadapter.ErrTruncated)
	default:
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
	c.rearm = true
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
		c.lastRead.Store(int64(c.t.now()))
		c.rearm = true
		if c.broken { // what is left could not be read meanwhile
			c.limit = time.Now().Add(c.t.cfg.Linger)
		}
	}
	if c.rearm {
		c.rearm = false
		var by time.Time
		if c.t.cfg.Idle > 0 {
			by = c.t.began.Add(time.Duration(c.lastRead.Load()) + c.t.cfg.Idle)
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
		switch idle := c.t.cfg.Idle; {
		case c.pauses != 0:
		case c.broken && !time.Now().Before(c.limit):
			c.abortLocked(link.ErrLinger)
		case idle > 0 && c.t.now()-time.Duration(c.lastRead.Load()) >= idle:
			c.abortLocked(link.ErrIdle)
		}
		return
	}
	var call *os.SyscallError
	switch {
	case errors.As(err, &call):
		c.abortLocked(call)
	case c.tls == nil && c.sock.fin:
		c.eofLocked(io.EOF)
	case c.tls == nil:
		c.abortLocked(err)
	case c.sock.fin: // crypto/tls would have stopped at close_notify
		c.eofLocked(c.receiveError(tlsadapter.ErrTruncated))
	case errors.Is(err, io.EOF): // close_notify
		c.closeLocked(io.EOF)
	default: // crypto/tls has sent an alert
		c.closeLocked(c.receiveError(tlsadapter.Describe("read", err)))
	}
}

// receiveError is the reason of a connection whose TLS stream came to an end that it should not.
func (c *conn) receiveError(err error) error {
	return &driver.Error{Op: "connection", Code: driver.ErrReceive, Address: c.remote, Err: err}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// discard drops the input of a connection that is closing, until the peer's FIN, so that the kernel has no reason to answer it
// with a reset, which would destroy what the peer has not read yet.
func (c *conn) discard(buf []byte) {
	for dropped := 0; c.mayDiscard(); {
		n, err := c.sock.Read(buf)
		dropped += n
		switch {
		case err == nil && dropped < link.LingerInput, isTimeout(err):
			continue
		case err == nil:
			err = link.ErrLingerInput
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
	for c.writing || c.State() != link.Closed && c.detaching == nil {
		c.changed.Wait()
	}
	d := c.detaching
	if d != nil && c.State() != link.Closed {
		c.setReasonLocked(d.reason)
		d.done = true
	}
	c.state.Store(uint32(link.Closed))
	if c.deadline != nil {
		c.deadline.Stop()
	}
	reason, mayNotify := c.reason, c.tls != nil && !c.ended && !c.broken && !c.cut
	c.mu.Unlock()
	if d != nil && d.done {
		c.sock.mode.Store(detached)
		_ = c.sock.TCPConn.SetDeadline(time.Time{})
	} else {
		if mayNotify {
			c.sendCloseNotify()
		}
		c.sock.Close()
	}
	c.guard(func() { c.h.OnClose(reason) })
	if d != nil {
		close(d.over)
	}
	c.t.leave(c)
}

// sendCloseNotify tells the peer of a connection that ends that is aborted, if it takes that at once.
func (c *conn) sendCloseNotify() {
	const atOnce = 10 * time.Millisecond
	c.sock.mode.Store(ending)
	_ = c.sock.TCPConn.SetWriteDeadline(time.Now().Add(atOnce))
	_ = c.tls.CloseWrite()
}
