package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"gridstream/driver"
)

// dialer connects players.
type dialer interface {
	// dial calls p.connected, p.onPacket and p.disconnected, one at a time, from elsewhere.
	dial(p *player) error
	close(ctx context.Context) error
}

// defaultDial is dialDriver where all of 127.0.0.0/8 is loopback.
func defaultDial() string {
	if runtime.GOOS == "linux" {
		return dialDriver
	}
	return dialNet
}

// bindFor is where a server listens for players that connect with dial.
func bindFor(dial string) driver.Bind {
	if dial == dialDriver {
		return driver.Bind{} // every address of 127.0.0.0/8; the server closes what comes from elsewhere
	}
	return driver.Bind{Address: "127.0.0.1"}
}

func newDialer(f *fleet) (dialer, error) {
	switch f.order.Dial {
	case dialDriver:
		return newDriversDialer(f)
	case dialNet:
		return &netDialer{port: f.order.Port, certificate: f.order.Certificate}, nil
	}
	return nil, fmt.Errorf("unknown dialer %q", f.order.Dial)
}

// playersPerDriver keeps collisions rare; see driverDialer.onDisconnected.
const playersPerDriver = 2000

// driversDialer connects the players with drivers.
type driversDialer []*driverDialer

func newDriversDialer(f *fleet) (driversDialer, error) {
	n := (len(f.players) + playersPerDriver - 1) / playersPerDriver
	loops := max(1, runtime.GOMAXPROCS(0)/n)
	var drivers driversDialer
	for players := range slices.Chunk(f.players, playersPerDriver) {
		from := playerAddress(len(drivers), 0).Addr()
		d, err := newDriverDialer(players, f.order, driver.Bind{Address: from.String()}, loops)
		if err != nil {
			return nil, err
		}
		drivers = append(drivers, d)
	}
	return drivers, nil
}

func (ds driversDialer) dial(p *player) error { return ds[p.number/playersPerDriver].dial(p) }

func (ds driversDialer) close(ctx context.Context) error {
	var errs []error
	for _, d := range ds {
		errs = append(errs, d.close(ctx))
	}
	return errors.Join(errs...)
}

// driverDialer connects players with one driver. A driver knows its connections by the remote address, so that each
// player needs another address of the server: 127.0.0.1, 127.0.0.2 and so on.
type driverDialer struct {
	// Immutable.
	players []*player
	port    uint16
	drv     driver.Driver

	redials chan *player // no more than the logins at once
	done    sync.WaitGroup
}

func newDriverDialer(players []*player, o order, from driver.Bind, loops int) (*driverDialer, error) {
	d := &driverDialer{players: players, port: o.Port, redials: make(chan *player, loginsAtOnce)}
	var err error
	d.drv, err = newDriver(driver.Config{
		MaxConnections: len(players) + loginsAtOnce, // those that redial may not be gone yet
		EventLoops:     loops,
		OnPacket:       func(c driver.Conn, packet []byte) { c.Value().(*player).onPacket(packet) },
	}, from, trusting(o.Certificate))
	if err != nil {
		return nil, err
	}
	d.drv.Events().Subscribe(driver.SubscriberFuncs{Established: d.onEstablished, Disconnected: d.onDisconnected})
	d.done.Go(d.redial)
	return d, nil
}

func (d *driverDialer) dial(p *player) error {
	p.tries++
	return d.drv.ConnectTo(playerAddress(int(p.number)%playersPerDriver, d.port))
}

func (d *driverDialer) redial() {
	for p := range d.redials {
		if err := d.dial(p); err != nil {
			p.disconnected(err)
		}
	}
}

func (d *driverDialer) onEstablished(ev driver.Event) {
	p := d.players[playerNumber(ev.Address)]
	ev.Conn.SetValue(p)
	p.connected(ev.Conn)
}

// onDisconnected has a player that was not let in try again: two connections to different addresses may get the same
// local port, and the server, for which they have the same address then, refuses the second one.
func (d *driverDialer) onDisconnected(ev driver.Event) {
	const most = 20
	p := d.players[playerNumber(ev.Address)]
	refused := errors.Is(ev.Reason, io.EOF) || errors.Is(ev.Reason, io.ErrUnexpectedEOF) || errors.Is(ev.Reason, syscall.ECONNRESET)
	if refused && !p.in && p.tries < most {
		d.redials <- p
		return
	}
	p.disconnected(ev.Reason)
}

func (d *driverDialer) close(ctx context.Context) error {
	err := d.drv.Shutdown(ctx)
	close(d.redials)
	d.done.Wait()
	return err
}

// netDialer connects the players with package net, a goroutine each: for systems where 127.0.0.2 is not this host,
// and to show that the other end need not be a driver.
type netDialer struct {
	port        uint16
	certificate []byte // the server's, if it is secure
	conns       sync.WaitGroup
}

func (d *netDialer) dial(p *player) error {
	d.conns.Go(func() { p.disconnected(d.run(p)) })
	return nil
}

func (d *netDialer) run(p *player) error {
	conn, err := net.DialTimeout("tcp", playerAddress(0, d.port).String(), loginTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if d.certificate != nil {
		conn = secureConn(conn, d.certificate)
	}
	p.connected(netLink{conn})
	in := bufio.NewReader(conn)
	var packet []byte
	for {
		var length [2]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if cap(packet) < n {
			packet = make([]byte, n)
		}
		packet = packet[:n]
		if _, err := io.ReadFull(in, packet); err != nil {
			return err
		}
		p.onPacket(packet)
	}
}

func (d *netDialer) close(ctx context.Context) error {
	done := make(chan struct{})
	go func() { d.conns.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// netLink frames a player's packets by hand.
type netLink struct{ conn net.Conn }

func (l netLink) Send(packet []byte) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(leaveTimeout))
	_, err := l.conn.Write(driver.LengthPrefix16BE.AppendFrame(make([]byte, 0, 32), packet))
	return err
}

func (l netLink) Close(error) { _ = l.conn.Close() }
