package driver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// newConn makes a connection that has no link yet. Its slot is taken.
func (d *core) newConn(inbound bool) *conn {
	c := &conn{core: d, id: lastID.Add(1), inbound: inbound, limiter: newLimiter(&d.cfg)}
	c.holds.Store(1)
	if d.inbox != nil {
		c.mailbox = &mailbox{conn: c, inbox: d.inbox}
	}
	if d.security != nil {
		c.secure = &secure{started: time.Now()}
	}
	return c
}

// attach gives c its link, nc, and blocks until it is established or gone. It owns nc. An error means that it never was,
// that there is no event, and that the slot is still to be released.
func (d *core) attach(c *conn, nc *net.TCPConn) error {
	remote := tcp.AddrPort(nc.RemoteAddr()).Addr()
	if source := c.source(); source.IsValid() {
		remote = source.Addr()
	}
	if c.awaitedHeader() == nil && !d.inheritsCount(c, nc) {
		if err := d.countPeer(c, remote); err != nil {
			nc.Close()
			return err
		}
	}
	err := ErrDriverClosed
	if d.linkComes() {
		if err = d.transport().Attach(nc, c, c.setLink); err == nil {
			return nil
		}
		d.linkGone()
	}
	nc.Close()
	if c.perIP.Swap(false) {
		d.perIP.release(remote)
	}
	return attachError(err)
}

// inheritsCount has c take the place of the connection that it is the proof of the end of: see conn.replaces.
func (d *core) inheritsCount(c *conn, nc *net.TCPConn) bool {
	if d.perIP.max == 0 {
		return false
	}
	old := d.registry.get(key(tcp.AddrPort(nc.RemoteAddr())))
	if old == nil || !c.replaces(old, tcp.AddrPort(nc.LocalAddr())) {
		return false
	}
	old.abort(errReplaced)
	c.perIP.Store(old.perIP.Swap(false))
	return c.perIP.Load()
}

// countPeer counts a connection that was accepted from a; the error is of one too many.
func (d *core) countPeer(c *conn, a netip.Addr) error {
	if !c.inbound || d.perIP.max == 0 {
		return nil
	}
	if !d.perIP.acquire(a) {
		d.counters.acceptsRefused.Add(1)
		return fmt.Errorf("%v has MaxConnectionsPerIP %d connections", a, d.perIP.max)
	}
	c.perIP.Store(true)
	return nil
}

func attachError(err error) error {
	if errors.Is(err, link.ErrTransportClosed) {
		return ErrDriverClosed
	}
	return err
}

// linkComes counts a link that is on its way; false when the driver is closing.
func (d *core) linkComes() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Load() {
		return false
	}
	d.attached++
	return true
}

func (d *core) linkGone() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attached--
	d.emptyLocked()
}

// isEmpty reports that closing has begun and there is no link any more.
func (d *core) isEmpty() bool {
	select {
	case <-d.empty:
		return true
	default:
		return false
	}
}

func (d *core) emptyLocked() {
	if d.attached == 0 && d.closing.Load() {
		select {
		case <-d.empty:
		default:
			close(d.empty)
		}
	}
}
