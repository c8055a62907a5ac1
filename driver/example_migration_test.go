package driver_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"sync"
	"time"

	"gridstream/driver"
	"gridstream/driver/stdnet"
)

// A zone on package net, as one writes it: docs/migration.md begins with it.

type netZone struct {
	mu      sync.Mutex
	players map[*netPlayer]struct{}
}

type netPlayer struct {
	nc  net.Conn
	out chan []byte
}

func (z *netZone) serve(ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go z.handle(nc)
	}
}

func (z *netZone) handle(nc net.Conn) {
	p := &netPlayer{nc: nc, out: make(chan []byte, 64)}
	z.join(p)
	go p.write()
	br := bufio.NewReader(nc)
	for {
		_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
		packet, err := readPacket(br)
		if err != nil {
			log.Println(nc.RemoteAddr(), "left:", err)
			break
		}
		z.broadcast(packet)
	}
	z.leave(p)
}

func readPacket(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, packet)
	return packet, err
}

func (p *netPlayer) write() {
	defer p.nc.Close()
	for packet := range p.out {
		frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
		_ = p.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := p.nc.Write(frame); err != nil {
			return
		}
	}
}

func (z *netZone) broadcast(packet []byte) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for p := range z.players {
		select {
		case p.out <- packet:
		default:
			p.nc.Close() // too slow: its reader fails, and it leaves
		}
	}
}

func (z *netZone) join(p *netPlayer) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.players[p] = struct{}{}
}

func (z *netZone) leave(p *netPlayer) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.players, p)
	close(p.out)
}

// The same zone on the driver, and what its parts look like on the way there.

func newZone() (*driver.Stream, error) {
	zone := driver.NewGroup()
	d, err := stdnet.New(driver.Config{
		IdleTimeout:  time.Minute,
		StallTimeout: 10 * time.Second,
		SlowConsumer: driver.DisconnectSlow,
		OnPacket:     func(c driver.Conn, packet []byte) { zone.Broadcast(packet) },
	})
	if err != nil {
		return nil, err
	}
	d.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { zone.Add(ev.Conn) },
		Disconnected: func(ev driver.Event) { log.Println(ev.Address, "left:", ev.Reason) },
	})
	return d, nil
}

// acceptInto keeps the accept loop: each connection goes to the driver.
func acceptInto(d driver.Driver, ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		if _, err := d.Adopt(nc); err != nil {
			log.Print(err) // nc is closed
		}
	}
}

// keepListener keeps the listener, and leaves the accepting to the driver.
func keepListener(d driver.Driver, ln net.Listener) error {
	return errors.Join(d.Initialize(driver.Bind{}), d.StartListenOn(ln))
}

// listen has the driver do it all.
func listen(d driver.Driver, port uint16) error {
	return errors.Join(d.Initialize(driver.Bind{Port: port}), d.StartListen(0))
}

type request struct {
	conn   driver.Conn
	packet []byte
}

// saving hands what blocks to workers of the application's own.
func saving(work chan<- request) func(driver.Conn, []byte) {
	return func(c driver.Conn, packet []byte) {
		select {
		case work <- request{c, append([]byte(nil), packet...)}: // packet is only valid until it returns
		default:
			c.Close(errors.New("asks for more than can be saved"))
		}
	}
}

// save is a worker. It answers when it is done, waiting for room if it must.
func save(ctx context.Context, work <-chan request, store func([]byte) error) {
	for r := range work {
		if err := store(r.packet); err != nil {
			r.conn.Close(err)
			continue
		}
		if err := r.conn.SendContext(ctx, []byte("saved")); err != nil {
			log.Print(err)
		}
	}
}

// A game loop as in GridMate.
func frameOf(d driver.Driver, packet []byte, update func(packet []byte)) {
	d.Update()
	for {
		n, _, err := d.Receive(packet)
		if n == 0 || err != nil {
			return
		}
		update(packet[:n])
	}
}
