package stdnet

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// conn is a link. Two goroutines use its socket: the reader, which also calls the handler and ends it, and, while there
// is something to write, a writer. Who wants either to look up sets a deadline that has passed.
type conn struct {
	// Immutable.
	t             *transport
	h             link.Handler
	sock          *socket
	local, remote netip.AddrPort
	stripe        *stripe

	// Immutable after StartTLS.
	tls          *tls.Conn // nil: plain
	renegotiates bool      // its configuration would

	// Atomic: written under mu.
	state atomic.Uint32

	// Atomic.
	received, sent atomic.Uint64
	lastRead       atomic.Int64 // on the transport's clock; with an idle limit
	shaken         atomic.Bool  // the handshake is done

	// Guarded by mu. mailbox.mu -> mu.
	mu        sync.Mutex
	changed   sync.Cond                  // state, pauses, writing or detaching
	out       *bytebufferpool.ByteBuffer // queued; nil: empty
	inFlight  int                        // bytes that the writer has; the limit does not count them
	reason    error                      // the first one
	pauses    link.Pause
	deadline  *time.Timer // of SetDeadline; nil: none
	writeBy   time.Time   // the write deadline that is set
	progress  time.Time   // when bytes last left, or began to wait
	limit     time.Time   // closing or broken: the latest end
	unacked   int32       // closing: what the kernel had not delivered when last looked
	corked    bool        // a callback is running; what it sends goes out when it returns
	writing   bool        // there is a writer
	rearm     bool        // the read deadline is not the idle limit's
	starved   bool        // a Write found the queue full, and OnDrained was not called since
	eof       bool        // the peer's FIN was seen
	broken    bool        // a write failed; reading goes on, since what came before may still be there
	ended     bool        // close_notify and FIN were sent
	cut       bool        // a write ended within a record
	detaching *detaching  // nil: nobody wants it
}

var _ link.TLS = (*conn)(nil)

func newConn(t *transport, nc *net.TCPConn, h link.Handler) *conn {
	c := &conn{t: t, h: h, local: tcp.AddrPort(nc.LocalAddr()), remote: tcp.AddrPort(nc.RemoteAddr()), rearm: true}
	c.state.Store(uint32(link.Open))
	c.lastRead.Store(int64(t.now()))
	c.sock = &socket{TCPConn: nc, c: c}
	c.changed.L = &c.mu
	return c
}

// callback runs a callback of the handler, and then sends what it queued.
func (c *conn) callback(f func()) {
	c.cork()
	c.guard(f)
	c.uncork()
}

func (c *conn) deliver(b []byte) {
	c.cork()
	func() {
		defer link.Contain(c, c.h)
		c.h.OnData(b)
	}()
	c.uncork()
}

func (c *conn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *conn) uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	c.writeLocked()
}

// guard runs a callback and contains its panic to this connection.
func (c *conn) guard(f func()) {
	defer link.Contain(c, c.h)
	f()
}

// LocalAddr implements link.Link.
func (c *conn) LocalAddr() netip.AddrPort { return c.local }

// RemoteAddr implements link.Link.
func (c *conn) RemoteAddr() netip.AddrPort { return c.remote }

// SetRemoteAddr implements link.Link.
func (c *conn) SetRemoteAddr(a netip.AddrPort) { c.remote = a }

// State implements link.Link.
func (c *conn) State() link.State { return link.State(c.state.Load()) }

// Received implements link.Link.
func (c *conn) Received() uint64 { return c.received.Load() }

// Sent implements link.Link.
func (c *conn) Sent() uint64 { return c.sent.Load() }

// StartTLS implements link.TLS.
func (c *conn) StartTLS(cfg *tls.Config, client bool, unread []byte) {
	c.sock.unread = unread
	if client {
		c.tls = tls.Client(c.sock, cfg)
		c.renegotiates = cfg.Renegotiation != tls.RenegotiateNever
	} else {
		c.tls = tls.Server(c.sock, cfg)
	}
}

// ConnectionState implements link.TLS: nothing before the handshake is done, which crypto/tls would wait for.
func (c *conn) ConnectionState() tls.ConnectionState {
	if !c.shaken.Load() {
		return tls.ConnectionState{}
	}
	return c.tls.ConnectionState()
}

// SetDeadline implements link.Link.
func (c *conn) SetDeadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline != nil {
		c.deadline.Stop()
		c.deadline = nil
	}
	if d > 0 && c.State() == link.Open && !c.broken {
		var timer *time.Timer
		timer = time.AfterFunc(d, func() {
			c.mu.Lock()
			due := c.deadline == timer && c.State() == link.Open
			c.mu.Unlock()
			if due {
				c.guard(c.h.OnDeadline)
			}
		})
		c.deadline = timer
	}
}

// Pause implements link.Link.
func (c *conn) Pause(p link.Pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != link.Open {
		return
	}
	if c.pauses == 0 {
		c.t.paused.Add(1)
	}
	c.pauses |= p
	if !c.corked {
		c.interruptReadLocked()
	}
}

// Resume implements link.Link.
func (c *conn) Resume(p link.Pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauses &^= p
	c.changed.Broadcast()
}

// Paused implements link.Link.
func (c *conn) Paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pauses != 0
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// interruptReadLocked has the reader look at the state.
func (c *conn) interruptReadLocked() {
	c.rearm = true
	_ = c.sock.SetReadDeadline(past)
	c.changed.Broadcast()
}

// interruptWriteLocked has the writer look at the state, when it next has to wait.
func (c *conn) interruptWriteLocked() {
	c.writeBy = past
	_ = c.sock.TCPConn.SetWriteDeadline(past)
}
