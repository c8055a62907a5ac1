package driver

import (
	"errors"
	"net"
	"net/netip"
	"os"
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
	if inCallback() {
		return fail(ErrInCallback)
	}
	tc, more, err := tcpConn(nc)
	if err != nil {
		return fail(err)
	}
	if !d.slots.TryAcquire() {
		return fail(ErrTooManyConnections)
	}
	_ = tc.SetDeadline(time.Time{})
	c := d.newConn(true)
	c.setKnown(more)
	if err := d.attach(c, tc); err != nil {
		c.release()
		return fail(err)
	}
	if c.secure == nil && !c.registered {
		return fail(ErrConnected)
	}
	return c, nil
}

// writeQueued writes b, as long as within each stall the peer takes some of it.
func writeQueued(nc net.Conn, b []byte, stall time.Duration) error {
	if len(b) == 0 {
		return nil
	}
	for {
		_ = nc.SetWriteDeadline(time.Now().Add(stall))
		n, err := nc.Write(b)
		b = b[n:]
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
		if len(b) == 0 {
			return nc.SetWriteDeadline(time.Time{})
		}
	}
}

// Hijack implements Conn.
func (c *conn) Hijack() (net.Conn, error) {
	fail := func(cause error) (net.Conn, error) {
		return nil, &Error{Op: "Hijack", Code: ErrSocketClose, Address: c.RemoteAddr(), Err: cause}
	}
	if inCallback() {
		return fail(ErrInCallback)
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
	if err := writeQueued(nc, queued, c.core.cfg.StallTimeout); err != nil {
		nc.Close()
		return fail(err)
	}
	if remote := c.RemoteAddr(); tcp.AddrPort(nc.RemoteAddr()) != remote { // it is not the socket's
		nc = known(nc, nil, remote)
	}
	if c.secure != nil && c.secure.session != nil {
		tc, err := c.secure.session.Detach(nc)
		if err != nil {
			nc.Close()
			return fail(err)
		}
		nc = tc
	}
	return known(nc, c.takeUnread(), netip.AddrPort{}), nil
}
