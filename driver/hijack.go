package driver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"gridstream/loop"
)

// Adopt implements Driver.
func (d *core) Adopt(nc net.Conn) (Conn, error) {
	fail := func(cause error) (Conn, error) {
		if nc != nil {
			nc.Close()
		}
		return nil, &Error{Op: "Adopt", Code: ErrSocketAccept, Err: cause}
	}
	if err := d.ready("Adopt", ErrSocketAccept, loop.AddrPort(nil)); err != nil {
		if nc != nil {
			nc.Close()
		}
		return nil, err
	}
	var tc *net.TCPConn
	var unread []byte
	switch nc := nc.(type) {
	case *net.TCPConn:
		tc = nc
	case *hijackedConn:
		tc, unread = nc.TCPConn, nc.takeUnread()
	default:
		return fail(fmt.Errorf("a %T is not a *net.TCPConn", nc))
	}
	if !d.slots.TryAcquire() {
		return fail(ErrTooManyConnections)
	}
	_ = tc.SetDeadline(time.Time{})
	c := d.newConn(true)
	c.setUnread(unread)
	if err := d.attach(c, tc); err != nil {
		c.release()
		return fail(err)
	}
	if !c.registered {
		return fail(ErrConnected)
	}
	return c, nil
}

// Hijack implements Conn.
func (c *conn) Hijack() (net.Conn, error) {
	fail := func(cause error) (net.Conn, error) {
		return nil, &Error{Op: "Hijack", Code: ErrSocketClose, Address: c.RemoteAddr(), Err: cause}
	}
	nc, queued, err := c.link.Detach(ErrHijacked)
	if errors.Is(err, loop.ErrClosed) || errors.Is(err, loop.ErrEngineClosed) {
		err = ErrConnClosed
	}
	if err != nil {
		return fail(err)
	}
	if len(queued) > 0 {
		_ = nc.SetWriteDeadline(time.Now().Add(c.core.cfg.StallTimeout))
		if _, err := nc.Write(queued); err != nil {
			nc.Close()
			return fail(err)
		}
		_ = nc.SetWriteDeadline(time.Time{})
	}
	if unread := c.takeUnread(); unread != nil {
		return &hijackedConn{TCPConn: nc, unread: unread}, nil
	}
	return nc, nil
}

// hijackedConn is a hijacked connection of which some bytes were read from the socket already: they come first.
type hijackedConn struct {
	*net.TCPConn

	// Guarded by mu.
	mu     sync.Mutex
	unread []byte
}

// Read implements net.Conn.
func (h *hijackedConn) Read(b []byte) (int, error) {
	h.mu.Lock()
	n := copy(b, h.unread)
	h.unread = h.unread[n:]
	h.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	return h.TCPConn.Read(b)
}

// WriteTo implements io.WriterTo, for io.Copy.
func (h *hijackedConn) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(h.takeUnread())
	if err != nil {
		return int64(n), err
	}
	m, err := io.Copy(w, h.TCPConn)
	return int64(n) + m, err
}

func (h *hijackedConn) takeUnread() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.unread
	h.unread = nil
	return b
}
