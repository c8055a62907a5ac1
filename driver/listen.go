package driver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"gridstream/loop/tcp"
)

// StartListen implements Driver.
func (d *core) StartListen(backlog int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mayListenLocked("StartListen"); err != nil {
		return err
	}
	ln, err := d.bound.Listen(backlog)
	if err != nil {
		return &Error{Op: "StartListen", Code: ErrSocketListen, Address: d.bound.Address(), Err: err}
	}
	d.acceptLocked(ln)
	return nil
}

// StartListenOn implements Driver.
func (d *core) StartListenOn(ln net.Listener) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ln == nil {
		return &Error{Op: "StartListenOn", Code: ErrSocketListen, Err: errors.New("nil listener")}
	}
	if _, ok := ln.Addr().(*net.TCPAddr); !ok {
		ln.Close()
		return &Error{Op: "StartListenOn", Code: ErrSocketListen, Err: fmt.Errorf("a listener on %v, which is no TCP address", ln.Addr())}
	}
	if err := d.mayListenLocked("StartListenOn"); err != nil {
		ln.Close()
		return err
	}
	d.acceptLocked(ln)
	return nil
}

func (d *core) mayListenLocked(op string) error {
	if err := d.readyLocked(op, ErrSocketListen, netip.AddrPort{}); err != nil {
		return err
	}
	if d.listeningLocked() {
		return &Error{Op: op, Code: ErrSocketListen, Address: d.listening, Err: ErrListening}
	}
	if d.security != nil {
		if err := d.security.serverErr(); err != nil {
			return &Error{Op: op, Code: ErrSecureCert, Err: err}
		}
	}
	return nil
}

func (d *core) acceptLocked(ln net.Listener) {
	d.listening = tcp.AddrPort(ln.Addr())
	d.acceptor = tcp.Accept(tcp.AcceptorConfig{
		Listener: ln,
		Slots:    d.slots,
		Logger:   d.cfg.Logger,
		Accept:   d.accept,
		Failed:   func(error) { d.counters.acceptErrors.Add(1) },
	})
	d.tasks.Add(1)
	go func(a *tcp.Acceptor) {
		defer d.tasks.Done()
		a.Wait()
	}(d.acceptor)
}

// StopListen implements Driver.
func (d *core) StopListen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.readyLocked("StopListen", ErrSocketListen, netip.AddrPort{}); err != nil {
		return err
	}
	if !d.listeningLocked() {
		return &Error{Op: "StopListen", Code: ErrSocketListen, Err: ErrNotListening}
	}
	err := d.stopListenLocked()
	if rebindErr := d.bound.Rebind(); rebindErr != nil {
		// StartListen tries again, and says so if it fails.
		d.cfg.Logger.Warn("driver: the port could not be kept", "addr", d.bound.Address(), "err", rebindErr)
	}
	if err != nil {
		return &Error{Op: "StopListen", Code: ErrSocketListen, Err: err}
	}
	return nil
}

func (d *core) stopListenLocked() error {
	if d.acceptor == nil {
		return nil
	}
	err := d.acceptor.Stop()
	d.acceptor = nil
	return err
}

// listeningLocked forgets a listener of the application's own that the application closed.
func (d *core) listeningLocked() bool {
	if d.acceptor != nil && d.acceptor.Over() {
		_ = d.stopListenLocked()
	}
	return d.acceptor != nil
}

// IsListening implements Driver.
func (d *core) IsListening() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listeningLocked()
}

// Port implements Driver.
func (d *core) Port() uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.listeningLocked():
		return d.listening.Port()
	case d.bound != nil:
		return d.bound.Address().Port()
	}
	return 0
}

// accept takes over a connection from the acceptor, with its slot.
func (d *core) accept(nc net.Conn) error {
	c := d.newConn(true)
	tc, more, err := tcpConn(nc)
	if err != nil {
		nc.Close()
		d.counters.acceptsRefused.Add(1)
		d.wrongListener.Do(func() { d.cfg.Logger.Warn("driver: the listener's connections cannot be taken", "err", err) })
		return d.lost(c, fmt.Errorf("a listener's connection: %w", err))
	}
	c.setKnown(more)
	if err := d.socket.TuneAccepted(tc); err != nil {
		nc.Close()
		return d.lost(c, err)
	}
	switch {
	case more.remote.IsValid():
	case d.cfg.isProxy(tcp.AddrPort(tc.RemoteAddr()).Addr()):
		c.awaitHeader()
	default:
		c.direct = true
	}
	if err := d.attach(c, tc); err != nil {
		return d.lost(c, err)
	}
	return nil
}

// lost gives back the slot of a connection that was accepted and not established.
func (d *core) lost(c *conn, err error) error {
	c.release()
	d.cfg.Logger.Debug("driver: an accepted connection was not established", "err", err)
	return err
}
