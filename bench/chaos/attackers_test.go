//go:build linux

package chaos_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// attackersOrder is what the attackers' process is told.
type attackersOrder struct {
	Server string
	TLS    bool
	Attack string
	Count  int // of connections at the same time
}

// attackersReport is how often they tried.
type attackersReport struct{ Attempts, NotConnected int64 }

// attackersAddress is where they come from, so that the server can tell them from players.
const attackersAddress = "127.0.0.2"

// What the first byte behind the number says of a packet.
const (
	playerPacket = 'P' // echo it
	greedyPacket = 'G' // send as much as there is room for
)

// attemptTick is how often each of them tries, at most: what is measured is how the server fares, not who gets the processor.
const attemptTick = 100 * time.Millisecond

// whenIdle has this process run only when nobody else wants to: attackers have machines of their own, and here they shall not take
// the processor from the server and the players.
func whenIdle() error {
	const schedIdle = 5
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads { // those to come inherit it
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		var priority int32
		_, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(id), schedIdle, uintptr(unsafe.Pointer(&priority)))
		if errno != 0 && errno != syscall.ESRCH {
			return os.NewSyscallError("sched_setscheduler", errno)
		}
	}
	return nil
}

type attackers struct {
	attackersOrder
	attempts, notConnected atomic.Int64
}

// attacks are one attempt each, over and over: they return when the server has ended the connection, or ctx is done.
var attacks = map[string]func(a *attackers, ctx context.Context) error{
	"PacketFlood":        inSession((*attackers).packetFlood),
	"ByteFlood":          inSession((*attackers).byteFlood),
	"SlowReaders":        inSession((*attackers).slowReader),
	"HalfOpenHandshakes": connected((*attackers).halfOpen),
	"SilentLogins":       inSession((*attackers).silentLogin),
	"SingleBytes":        connected((*attackers).singleBytes),
	"Garbage":            connected((*attackers).garbage),
	"GarbageInSessions":  inSession((*attackers).garbageInSession),
	"WrongLengths":       inSession((*attackers).wrongLength),
	"ConnectAndReset":    connected((*attackers).connectAndReset),
	"OneAddress":         inSession((*attackers).hold),
	"ClientHellosOf16MB": connected((*attackers).clientHelloOf16MB),
	"ClientHellosOf56KB": connected((*attackers).clientHelloOf56KB),
	"KeyUpdates":         connected((*attackers).keyUpdates),
	"Renegotiation":      connected((*attackers).renegotiation),
}

// unpaced attacks are tried as often as it goes: how often they connect is what they are about.
var unpaced = map[string]bool{"ConnectAndReset": true, "OneAddress": true}

// runAttackers says when all of them are at it, and answers "stop" with a report.
func runAttackers(order []byte, commands <-chan string, say func(any)) error {
	a := &attackers{}
	if err := json.Unmarshal(order, &a.attackersOrder); err != nil {
		return err
	}
	if err := whenIdle(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var begun, all sync.WaitGroup
	begun.Add(a.Count)
	attempt := attacks[a.Attack]
	for range a.Count {
		all.Go(func() {
			time.Sleep(rand.N(attemptTick)) // not all in the same moment
			pace := time.NewTicker(attemptTick)
			defer pace.Stop()
			begun.Done()
			for ctx.Err() == nil {
				a.attempts.Add(1)
				if attempt(a, ctx) != nil {
					a.notConnected.Add(1)
				}
				if unpaced[a.Attack] {
					continue
				}
				select {
				case <-ctx.Done():
				case <-pace.C:
				}
			}
		})
	}
	begun.Wait()
	say("attacking")
	for range commands { // "stop"
		stop()
		all.Wait()
		say(attackersReport{a.attempts.Load(), a.notConnected.Load()})
	}
	stop()
	return nil
}

// dial connects; ctx's end is the connection's.
func (a *attackers) dial(ctx context.Context) (*net.TCPConn, func(), error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(attackersAddress)}, Timeout: patience}
	nc, err := d.DialContext(ctx, "tcp", a.Server)
	if err != nil {
		return nil, nil, err
	}
	unhook := context.AfterFunc(ctx, func() { nc.Close() })
	return nc.(*net.TCPConn), func() { unhook(); nc.Close() }, nil
}

// session is dial, and a handshake where the server wants one.
func (a *attackers) session(ctx context.Context) (net.Conn, func(), error) {
	nc, done, err := a.dial(ctx)
	if err != nil || !a.TLS {
		return nc, done, err
	}
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		done()
		return nil, nil, err
	}
	return tc, done, nil
}

// connected is an attack on a connection.
func connected(attack func(*attackers, *net.TCPConn) error) func(*attackers, context.Context) error {
	return func(a *attackers, ctx context.Context) error {
		nc, done, err := a.dial(ctx)
		if err != nil {
			return err
		}
		defer done()
		return attack(a, nc)
	}
}

// inSession is an attack behind the handshake, where the server wants one.
func inSession(attack func(*attackers, net.Conn) error) func(*attackers, context.Context) error {
	return func(a *attackers, ctx context.Context) error {
		nc, done, err := a.session(ctx)
		if err != nil {
			return err
		}
		defer done()
		return attack(a, nc)
	}
}

// writes writes b until the server has had enough.
func writes(nc net.Conn, b []byte) {
	for {
		if _, err := nc.Write(b); err != nil {
			return
		}
	}
}

// waits waits for the server to end the connection.
func waits(nc net.Conn) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{nc}) }

// framed is n packets of size bytes.
func framed(n, size int, kind byte) []byte {
	packet := binary.BigEndian.AppendUint16(nil, uint16(size))
	packet = append(packet, make([]byte, size)...)
	packet[6] = kind
	return bytes.Repeat(packet, n)
}

func (a *attackers) packetFlood(nc net.Conn) error {
	writes(nc, framed(100, 16, 'F'))
	return nil
}

func (a *attackers) byteFlood(nc net.Conn) error {
	writes(nc, framed(4, 4000, 'F'))
	return nil
}

// slowReader asks for much and reads nothing.
func (a *attackers) slowReader(nc net.Conn) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := nc.Write(framed(1, 16, greedyPacket)); err != nil {
			return nil
		}
	}
	return nil
}

// halfOpen begins a handshake, if there is one, and no more.
func (a *attackers) halfOpen(nc *net.TCPConn) error {
	if a.TLS {
		_, _ = nc.Write([]byte("\x16\x03\x01\x02\x00\x01\x00"))
	}
	waits(nc)
	return nil
}

// silentLogin says nothing behind the handshake.
func (a *attackers) silentLogin(nc net.Conn) error {
	waits(nc)
	return nil
}

// singleBytes are those of a packet, or a handshake, that takes for ever.
func (a *attackers) singleBytes(nc *net.TCPConn) error {
	bytes := "\x0f\xff" + string(make([]byte, 4095))
	if a.TLS {
		bytes = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(make([]byte, 500))
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range bytes {
		if _, err := io.WriteString(nc, bytes[i:i+1]); err != nil {
			return nil
		}
		<-tick.C
	}
	return nil
}

// noise is no length, and no record's type.
func noise() []byte {
	b := make([]byte, 2000)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	b[0] = 0xff
	return b
}

func (a *attackers) garbage(nc *net.TCPConn) error {
	_, _ = nc.Write(noise())
	waits(nc)
	return nil
}

// garbageInSession comes behind a handshake: no record, or one that nobody sealed.
func (a *attackers) garbageInSession(nc net.Conn) error {
	b := noise()
	if rand.IntN(2) == 0 {
		copy(b, "\x17\x03\x03\x07\x00")
	}
	wire := nc.(*tls.Conn).NetConn()
	_, _ = wire.Write(b)
	waits(wire)
	return nil
}

// wrongLength is that of a packet: none, or too much.
func (a *attackers) wrongLength(nc net.Conn) error {
	_, _ = io.WriteString(nc, []string{"\x00\x00", "\x10\x01", "\xff\xff"}[rand.IntN(3)])
	waits(nc)
	return nil
}

func (a *attackers) connectAndReset(nc *net.TCPConn) error {
	_ = nc.SetLinger(0)
	return nil
}

// hold takes a connection and keeps it.
func (a *attackers) hold(nc net.Conn) error {
	for {
		if _, err := nc.Write(framed(1, 16, 'H')); err != nil {
			return nil
		}
		_ = nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
	}
}

// clientHelloOf16MB says that it is that large, and begins.
func (a *attackers) clientHelloOf16MB(nc *net.TCPConn) error {
	record := append([]byte("\x16\x03\x01\x40\x00"), make([]byte, 16<<10)...)
	copy(record[5:], "\x01\xff\xff\xff\x03\x03")
	writes(nc, record)
	return nil
}

// clientHelloOf56KB is nearly as large as crypto/tls takes one. Nothing is wrong with it; the end, behind the handshake, has no close_notify.
func (a *attackers) clientHelloOf56KB(nc *net.TCPConn) error {
	var protocols []string
	for i := range 220 {
		protocols = append(protocols, fmt.Sprintf("%0255d", i))
	}
	return tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}).Handshake()
}
