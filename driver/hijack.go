package driver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// Adopt implements Driver.
func (d *core) Adopt(nc net.Conn) (Conn, error) {
	fail := func(cause error) (Conn, error) {
		if nc != nil {
			nc.Close()
		}
		return nil, &Error{Op: "Adopt", Code: ErrSocketAccept, Err: cause}
	}
	if err := d.ready("Adopt", ErrSocketAccept, tcp.AddrPort(nil)); err != nil {
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
		tc, unread = nc.TCPConn, nc.unread.take()
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
	if c.secure == nil && !c.registered {
		return fail(ErrConnected)
	}
	return c, nil
}

// Hijack implements Conn.
func (c *conn) Hijack() (net.Conn, error) {
	fail := func(cause error) (net.Conn, error) {
		return nil, &Error{Op: "Hijack", Code: ErrSocketClose, Address: c.RemoteAddr(), Err: cause}
	}
	if c.secure != nil && !c.secure.ready.Load() {
		return fail(ErrHandshaking)
	}
	nc, queued, err := c.link.Detach(ErrHijacked)
	if errors.Is(err, link.ErrClosed) || errors.Is(err, link.ErrTransportClosed) {
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
	if c.secure != nil && c.secure.session != nil {
		tc, err := c.secure.session.Detach(nc)
		if err != nil {
			nc.Close()
			return fail(err)
		}
		nc = tc
	}
	b := c.takeUnread()
	if b == nil {
		return nc, nil
	}
	if tc, secure := nc.(*tls.Conn); secure {
		return &hijackedTLSConn{Conn: tc, unread: &unread{bytes: b}}, nil
	}
	return &hijackedConn{TCPConn: nc.(*net.TCPConn), unread: &unread{bytes: b}}, nil
}

// unread is what was read from a connection before it was hijacked: it comes first.
type unread struct {
	// Guarded by mu.
	mu    sync.Mutex
	bytes []byte
}

func (u *unread) read(b []byte) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := copy(b, u.bytes)
	u.bytes = u.bytes[n:]
	return n
}

func (u *unread) take() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.bytes
	u.bytes = nil
	return b
}

// hijackedConn is a connection that was hijacked with bytes unread.
type hijackedConn struct {
	*net.TCPConn
	unread *unread
}

// Read implements net.Conn.
func (h *hijackedConn) Read(b []byte) (int, error) {
	if n := h.unread.read(b); n > 0 {
		return n, nil
	}
	return h.TCPConn.Read(b)
}

// WriteTo implements io.WriterTo, for io.Copy.
func (h *hijackedConn) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(h.unread.take())
	if err != nil {
		return int64(n), err
	}
	m, err := io.Copy(w, h.TCPConn)
	return int64(n) + m, err
}

// hijackedTLSConn is likewise a connection with TLS.
type hijackedTLSConn struct {
	*tls.Conn
	unread *unread
}

// Read implements net.Conn.
func (h *hijackedTLSConn) Read(b []byte) (int, error) {
	if n := h.unread.read(b); n > 0 {
		return n, nil
	}
	return h.Conn.Read(b)
}
