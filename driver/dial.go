package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// dial is a ConnectTo under way. Immutable.
type dial struct {
	conn   *conn
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// giveUp ends it for the reason cause: dialling, or with TLS the handshake.
func (d *dial) giveUp(cause error) {
	d.cancel(cause)
	if d.conn.attached.Load() {
		d.conn.Close(cause)
	}
}

// ConnectTo implements Driver.
func (d *core) ConnectTo(addr netip.AddrPort) error {
	k := key(addr)
	fail := func(cause error) error {
		return &Error{Op: "ConnectTo", Code: ErrSocketConnect, Address: addr, Err: cause}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.readyLocked("ConnectTo", ErrSocketConnect, addr); err != nil {
		return err
	}
	switch {
	case !k.IsValid() || k.Port() == 0 || k.Addr().IsUnspecified():
		return fail(fmt.Errorf("%v is not an address to connect to", addr))
	case d.socket.Network == "tcp4" && !k.Addr().Is4(), d.socket.Network == "tcp6" && k.Addr().Is4():
		return fail(fmt.Errorf("%v is not of the driver's Family", addr))
	case d.registry.get(k) != nil:
		return fail(ErrConnected)
	case d.dials[k] != nil:
		return fail(ErrConnecting)
	case d.security != nil && d.security.clientErr() != nil:
		return &Error{Op: "ConnectTo", Code: ErrSecureConfig, Address: addr, Err: d.security.clientErr()}
	case !d.slots.TryAcquire():
		return fail(ErrTooManyConnections)
	}
	c := d.newConn(false)
	timed, stop := context.WithTimeoutCause(context.Background(), d.cfg.ConnectTimeout, ErrConnectTimeout)
	ctx, cancel := context.WithCancelCause(timed)
	c.setDialKey(k)
	d.dials[k] = &dial{conn: c, ctx: ctx, cancel: cancel}
	d.tasks.Add(1)
	go func() {
		defer d.tasks.Done()
		defer stop()
		defer cancel(nil)
		d.connect(ctx, c, k)
	}()
	return nil
}

// connect dials; the outcome is an event.
func (d *core) connect(ctx context.Context, c *conn, addr netip.AddrPort) {
	nc, err := d.transport().Dial(ctx, addr)
	if cause := context.Cause(ctx); cause != nil {
		if err == nil {
			nc.Close()
		}
		err = cause
	} else if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrConnectTimeout // the dialer noticed before the context did
	}
	if err == nil {
		err = d.attach(c, nc)
	}
	if err != nil {
		d.connectFailed(c, addr, err)
		return
	}
	c.attached.Store(true)
	if cause := context.Cause(ctx); cause != nil && cause != ErrConnectTimeout {
		c.Close(cause) // given up while it was being attached
	}
}

// hasOutcome tells that c, a ConnectTo's, has its outcome.
func (d *core) hasOutcome(c *conn) {
	k := c.dialKey()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dials, k)
}

// connectFailed reports a ConnectTo that came to nothing, and gives back its slot.
func (d *core) connectFailed(c *conn, addr netip.AddrPort, err error) {
	d.hasOutcome(c)
	d.counters.connectsFailed.Add(1)
	if errors.Is(err, ErrDriverClosed) {
		err = ErrShutdown
	}
	err = &Error{Op: "ConnectTo", Code: ErrSocketConnect, Address: addr, Err: err}
	d.postLast(c, Event{Address: addr, Reason: err})
}

// DisconnectFrom implements Driver.
func (d *core) DisconnectFrom(addr netip.AddrPort) error {
	d.mu.Lock()
	dial, err := d.dials[key(addr)], d.readyLocked("DisconnectFrom", ErrSocketClose, addr)
	d.mu.Unlock()
	if dial != nil && err == nil {
		dial.giveUp(ErrDisconnected)
		return nil
	}
	if c := d.registry.get(addr); c != nil { // also while Shutdown closes the others
		c.Close(ErrDisconnected)
		return nil
	}
	if err != nil {
		return err
	}
	return &Error{Op: "DisconnectFrom", Code: ErrSocketClose, Address: addr, Err: ErrNotConnected}
}
