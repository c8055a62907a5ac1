package driver

import (
	"errors"
	"net"
	"net/netip"
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
	if len(queued) > 0 {
		_ = nc.SetWriteDeadline(time.Now().Add(c.core.cfg.StallTimeout))
		if _, err := nc.Write(queued); err != nil {
			nc.Close()
			return fail(err)
		}
		_ = nc.SetWriteDeadline(time.Time{})
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
