package stdnet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// transport is the connections of a driver.
type transport struct {
	// Immutable.
	cfg   link.Config
	began time.Time

	// Atomic.
	paused  atomic.Uint64
	stripes [16]stripe

	running sync.WaitGroup // the connections' readers

	// Guarded by mu, a leaf.
	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
	last   int // the stripe that was given out last
}

// stripe is the counters of some connections: a cache line of their own.
type stripe struct {
	received, sent atomic.Uint64
	_              [64 - 2*8]byte
}

func start(cfg link.Config) (link.Transport, error) {
	return &transport{cfg: cfg, began: time.Now(), conns: make(map[*conn]struct{})}, nil
}

// now is the time since the transport began: no clock that somebody sets.
func (t *transport) now() time.Duration { return time.Since(t.began) }

// Dial implements link.Transport.
func (t *transport) Dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	return t.cfg.Socket.Dial(ctx, addr)
}

// Attach implements link.Transport.
func (t *transport) Attach(nc *net.TCPConn, h link.Handler, set func(link.Link)) error {
	if nc.LocalAddr() == nil || nc.RemoteAddr() == nil {
		nc.Close()
		return os.NewSyscallError("getpeername", syscall.ENOTCONN)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil { // e.g. it is closed
		return err
	}
	c := newConn(t, nc, h)
	if !t.enter(c) {
		nc.Close()
		return link.ErrTransportClosed
	}
	set(c)
	opened := make(chan struct{})
	go c.run(opened)
	<-opened
	return nil
}

func (t *transport) enter(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.last = (t.last + 1) % len(t.stripes)
	c.stripe = &t.stripes[t.last]
	t.conns[c] = struct{}{}
	t.running.Add(1)
	return true
}

// leave is the last that c does.
func (t *transport) leave(c *conn) {
	t.mu.Lock()
	delete(t.conns, c)
	t.mu.Unlock()
	t.running.Done()
}

// Batch implements link.Transport: the writers' goroutines mostly run when it is over.
func (t *transport) Batch(f func()) { f() }

// Stats implements link.Transport.
func (t *transport) Stats() link.Stats {
	s := link.Stats{ReadsPaused: t.paused.Load()}
	for i := range t.stripes {
		s.BytesReceived += t.stripes[i].received.Load()
		s.BytesSent += t.stripes[i].sent.Load()
	}
	return s
}

// Close implements link.Transport.
func (t *transport) Close() {
	t.mu.Lock()
	t.closed = true
	all := make([]*conn, 0, len(t.conns))
	for c := range t.conns {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.Abort(link.ErrTransportClosed)
	}
	t.running.Wait()
}

// socket is a connection's TCP connection, which counts, and whose Write goes on for as long as the peer takes something within the limit.
type socket struct {
	*net.TCPConn
	c *conn

	// Owned by the reader.
	unread []byte // received before StartTLS
	fin    bool   // the peer's FIN was read

	// Atomic: written by the reader.
	mode atomic.Uint32
}

// Modes of a socket.
const (
	limited  uint32 = iota // by the configuration
	ending                 // one write more, which does not wait
	detached               // its new owner's
)

// RemoteAddr implements net.Conn: whom the tls.Config's callbacks, and who hijacks it, are to see.
func (s *socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.c.remote) }

// SetWriteDeadline implements net.Conn. crypto/tls sets one of its own for close_notify: not as long as they are ours.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.mode.Load() != detached {
		return nil
	}
	return s.TCPConn.SetWriteDeadline(t)
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	if len(s.unread) > 0 {
		n := copy(b, s.unread)
		s.unread = s.unread[n:]
		return n, nil
	}
	n, err := s.TCPConn.Read(b)
	for isTimeout(err) && s.c.handshakeGoesOn() {
		n, err = s.TCPConn.Read(b)
	}
	if s.mode.Load() == detached {
		return n, err
	}
	if n > 0 {
		s.c.received.Add(uint64(n))
		s.c.stripe.received.Add(uint64(n))
		if s.c.t.cfg.Idle > 0 {
			s.c.lastRead.Store(int64(s.c.t.now()))
		}
	}
	s.fin = s.fin || err == io.EOF
	return n, err
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (n int, err error) {
	if s.mode.Load() != limited {
		return s.TCPConn.Write(b)
	}
	defer func() {
		if err != nil { // crypto/tls does not tell of all, e.g. the answer to a key update
			s.c.writeFailed(err)
		}
	}()
	for moved := true; ; {
		if err = s.c.armWrite(moved); err != nil {
			return n, err
		}
		var m int
		m, err = s.TCPConn.Write(b[n:])
		n += m
		moved = m > 0
		s.c.sent.Add(uint64(m))
		s.c.stripe.sent.Add(uint64(m))
		if n == len(b) || !isTimeout(err) {
			return n, err
		}
	}
}

// unacked is how many bytes the kernel has that the peer has not acknowledged.
func (s *socket) unacked() (n int32) {
	rc, err := s.SyscallConn()
	if err == nil {
		err = rc.Control(func(fd uintptr) { n = tcp.Unacked(int(fd)) })
	}
	if err != nil {
		return 0
	}
	return n
}
