package driver

import (
	"crypto/tls"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// lastID is the last Conn.ID that was given out: unique in the process, so that it has to be global.
var lastID atomic.Uint64

// conn implements Conn on a link.
type conn struct {
	// Immutable after OnOpen.
	core    *core
	link    link.Link
	id      uint64
	mailbox *mailbox // nil with OnPacket
	limiter *limiter // nil without limits
	secure  *secure  // nil without TLS
	inbound bool
	direct  bool // accepted here, from the peer itself

	// Owned by the loop.
	registered bool

	// Guarded by mu; here, since an idle connection's memory counts, beside what fills the word.
	gone bool // OnClose was called

	// Atomic.
	attached      atomic.Bool // a ConnectTo's has its link
	established   atomic.Bool // from Established until closing begins
	authenticated atomic.Bool
	perIP         atomic.Bool   // counted in core.perIP
	holds         atomic.Int32  // what keeps the connection's slot: the link, unread packets, queued events
	received      atomic.Uint64 // packets; written by the loop
	sent          atomic.Uint64 // packets
	value         atomic.Pointer[any]

	// Owned by the loop.
	partial *bytebufferpool.ByteBuffer // OnPacket: the beginning of a packet; nil: none

	// Guarded by mu. Group.mu -> conn.mu.
	mu   sync.Mutex
	more *more // nil: nothing of it yet
}

// more is what few connections have. Guarded by conn.mu.
type more struct {
	drained chan struct{} // closed when the outbound buffer has room again, or never will; nil: nobody waits
	groups  []*Group
	unread  []byte         // of a connection that is adopted, until OnOpen; of one that was hijacked
	dialled netip.AddrPort // what ConnectTo was given, as the key of core.dials
	source  netip.AddrPort // the peer, where the socket's is somebody in front; set before OnOpen

	// Of one that begins with a PROXY protocol header; see awaitHeader.
	header   *awaitedHeader // nil: it is there
	accepted time.Time
}

func (c *conn) moreLocked() *more {
	if c.more == nil {
		c.more = new(more)
	}
	return c.more
}

var (
	_ Conn         = (*conn)(nil)
	_ link.Handler = (*conn)(nil)
)

func (c *conn) setLink(l link.Link) { c.link = l }

// Reasons for which reading is paused.
const (
	pauseUser      link.Pause = 1 << iota // Conn.PauseReading
	pauseInbound                          // a full inbound buffer
	pauseHandshake                        // handshake bytes that no worker has come to yet
)

func (c *conn) ID() uint64 { return c.id }

func (c *conn) RemoteAddr() netip.AddrPort { return c.link.RemoteAddr() }

func (c *conn) LocalAddr() netip.AddrPort { return c.link.LocalAddr() }

func (c *conn) Inbound() bool { return c.inbound }

func (c *conn) TLS() (tls.ConnectionState, bool) {
	switch {
	case c.secure == nil:
		return tls.ConnectionState{}, false
	case c.secure.session == nil:
		return c.link.(link.TLS).ConnectionState(), true
	}
	return c.secure.session.ConnectionState(), true
}

func (c *conn) SetValue(v any) { c.value.Store(&v) }

func (c *conn) Value() any {
	if v := c.value.Load(); v != nil {
		return *v
	}
	return nil
}

func (c *conn) Authenticated() {
	if c.authenticated.Swap(true) || !c.inbound || c.core.cfg.LoginTimeout == 0 {
		return
	}
	if c.secure == nil || c.secure.ready.Load() { // else it is the handshake's
		c.link.SetDeadline(0)
	}
}

func (c *conn) PauseReading() { c.pause(pauseUser) }

func (c *conn) ResumeReading() { c.resume(pauseUser) }

// pause stops reading. What the peer sends meanwhile is not held against it, when it comes all at once.
func (c *conn) pause(p link.Pause) {
	if c.limiter == nil {
		c.link.Pause(p)
		return
	}
	c.limiter.pause(c.link, p)
}

func (c *conn) resume(p link.Pause) {
	if c.limiter == nil {
		c.link.Resume(p)
		return
	}
	c.limiter.resume(c.link, p)
}

func (c *conn) Stats() ConnStats {
	s := ConnStats{
		PacketsReceived:  c.received.Load(),
		PacketsSent:      c.sent.Load(),
		BytesReceived:    c.link.Received(),
		BytesSent:        c.link.Sent(),
		OutboundBuffered: c.link.Buffered(),
		Paused:           c.link.Paused(),
	}
	if c.mailbox != nil {
		s.InboundBuffered = c.mailbox.size()
	}
	return s
}

func (c *conn) Close(reason error) {
	if reason == nil {
		reason = ErrDisconnected
	}
	c.link.Close(&given{reason})
	c.endLate(reason)
	c.uncount()
}

// given is a reason that the application gave, which may wrap anything.
type given struct{ reason error }

func (g *given) Error() string { return g.reason.Error() }

// abort closes at once, and drops what is queued.
func (c *conn) abort(reason error) {
	c.link.Abort(reason)
	c.endLate(reason)
	c.uncount()
}

// uncount takes the connection out of those that are established, and ends the waiting of SendContext.
func (c *conn) uncount() {
	c.OnDrained()
	if c.established.Swap(false) {
		c.core.connections.Add(-1)
	}
}

// isOpen reports whether it is established and not closing.
func (c *conn) isOpen() bool {
	return c.established.Load() && c.link.State() == link.Open
}

// OnOpen implements link.Handler.
func (c *conn) OnOpen() {
	if source := c.source(); source.IsValid() {
		c.link.SetRemoteAddr(source)
	}
	h := c.awaitedHeader()
	if h == nil {
		c.begin()
		return
	}
	c.core.isPending(c)
	limit := c.core.cfg.ProxyTimeout
	if login := c.core.cfg.LoginTimeout; login > 0 {
		limit = min(limit, login)
	}
	c.link.SetDeadline(limit)
	if c.core.closing.Load() {
		c.Close(ErrShutdown)
		return
	}
	if b := c.takeUnread(); b != nil { // of a listener of the application's own
		c.receiveHeader(h, b)
	}
}

// begin goes on with a connection whose peer is known.
func (c *conn) begin() {
	if c.secure != nil {
		c.beginHandshake()
		return
	}
	c.establish()
}

// establish makes the connection one that the application sees.
func (c *conn) establish() {
	core := c.core
	if !c.register() {
		if c.inbound {
			core.counters.acceptsRefused.Add(1)
		}
		c.link.Abort(ErrConnected)
		return
	}
	c.registered = true
	if c.inbound {
		core.counters.accepted.Add(1)
		if d := core.cfg.LoginTimeout; d > 0 && !c.authenticated.Load() {
			if at := c.acceptedAt(); !at.IsZero() {
				d = max(d-time.Since(at), 1)
			}
			c.link.SetDeadline(d)
		}
	} else {
		core.counters.dialled.Add(1)
		core.hasOutcome(c)
	}
	c.established.Store(true)
	core.connections.Add(1)
	core.postEstablished(c, Event{Address: c.RemoteAddr(), Conn: c})
	if core.closing.Load() {
		c.Close(ErrShutdown)
	}
	if b := c.takeUnread(); b != nil {
		c.receive(b)
	}
}

// errReplaced is what the system would have said.
var errReplaced = os.NewSyscallError("read", syscall.ECONNRESET)

// replaces reports whether c, which comes from old's address and port to local, is the proof of old's end: its peer has left without a
// word, as the kernel lets no two live.
func (c *conn) replaces(old *conn, local netip.AddrPort) bool {
	return c.direct && old.direct && old.LocalAddr() == local
}

// register enters the connection under its address; false where that is somebody else's.
func (c *conn) register() bool {
	old := c.core.registry.add(c, nil)
	for old != nil {
		if !c.replaces(old, c.LocalAddr()) {
			return false
		}
		other := c.core.registry.add(c, old)
		if other == nil {
			old.abort(errReplaced)
		}
		old = other
	}
	return true
}

// OnWake implements link.Handler.
func (c *conn) OnWake() {
	if c.secure != nil {
		c.endHandshake()
	}
}

// OnDeadline implements link.Handler. What the limit was for may be over since it came, and the next one not.
func (c *conn) OnDeadline() {
	login := c.core.cfg.LoginTimeout
	switch {
	case c.awaitedHeader() != nil:
		c.abort(ErrProxyTimeout)
	case c.secure != nil && !c.secure.ready.Load():
		if reason := c.handshakeTimedOut(); reason != nil {
			c.abort(reason)
		}
	case c.inbound && login > 0 && !c.authenticated.Load():
		if at := c.acceptedAt(); at.IsZero() || time.Since(at) >= login {
			c.abort(ErrLoginTimeout)
		}
	}
}

// OnPanic implements link.Handler.
func (c *conn) OnPanic(p *link.PanicError) { c.panicked(p.Value, p.Stack) }

// OnClose implements link.Handler.
func (c *conn) OnClose(cause error) {
	if c.secure == nil || !c.endsInHandshake(cause) {
		c.close(cause)
	}
}

// close is the end of the connection.
func (c *conn) close(cause error) {
	core, remote := c.core, c.RemoteAddr()
	reason := c.reasonOf(cause)
	core.notPending(c)
	hijacked := cause == ErrHijacked // and not the application's own reason
	if c.secure != nil && !hijacked {
		if own := c.secure.reason.Load(); own != nil {
			reason = *own
		}
		reason = c.endSession(reason)
	}
	c.uncount()
	if hijacked {
		c.keepUnread()
	}
	c.keep(nil)
	if c.mailbox != nil {
		c.mailbox.end()
	}
	groups := c.setGone()
	for _, g := range groups {
		g.Remove(c)
	}
	if c.perIP.Swap(false) {
		core.perIP.release(remote.Addr())
	}
	switch {
	case c.registered:
		core.registry.remove(c)
		core.counters.disconnected.Add(1)
		core.ends.count(reason)
		core.postLast(c, Event{Address: remote, Conn: c, Reason: reason})
	case !c.inbound:
		core.connectFailed(c, remote, reason)
	default:
		if c.awaitedHeader() != nil {
			core.counters.proxyHeadersFailed.Add(1)
			core.cfg.Logger.Debug("driver: no PROXY protocol header", "addr", remote, "err", reason)
		} else if c.secure != nil && c.handshakeBegan() && !c.secure.ready.Load() {
			core.counters.handshakesFailed.Add(1)
			core.cfg.Logger.Debug("driver: TLS handshake failed", "addr", remote, "err", reason)
		}
		c.release()
	}
	core.linkGone()
}

func (c *conn) setGone() (groups []*Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if m := c.more; m != nil {
		if m.drained != nil {
			close(m.drained)
		}
		groups, m.groups = m.groups, nil
	}
	return groups
}

// keepUnread puts aside what was received and not delivered.
func (c *conn) keepUnread() {
	switch {
	case c.mailbox != nil:
		c.setUnread(c.mailbox.drain())
	case c.partial != nil:
		c.setUnread(append([]byte(nil), c.partial.B...))
	}
}

func (c *conn) setUnread(b []byte) {
	if len(b) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moreLocked().unread = b
}

// setKnown keeps what is known of a connection beyond its socket. Before it is attached.
func (c *conn) setKnown(b *beyond) {
	c.setUnread(b.take())
	if b.remote.IsValid() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.moreLocked().source = b.remote
	}
}

func (c *conn) source() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		return netip.AddrPort{}
	}
	return c.more.source
}

func (c *conn) setDialKey(k netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moreLocked().dialled = k
}

func (c *conn) dialKey() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.more.dialled
}

func (c *conn) takeUnread() (b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.more; m != nil {
		b, m.unread = m.unread, nil
	}
	return b
}

// reasonOf is the documented reason for what ended the link.
func (c *conn) reasonOf(cause error) error {
	switch cause {
	case link.ErrIdle:
		return ErrIdleTimeout
	case link.ErrStall, link.ErrLinger:
		return ErrStallTimeout
	case link.ErrTransportClosed:
		return ErrShutdown
	}
	switch cause := cause.(type) {
	case *given:
		return cause.reason
	case *link.PanicError:
		return ErrPanic
	case *os.SyscallError:
		return &Error{Op: "connection", Code: ErrReceive, Address: c.RemoteAddr(), Err: cause}
	}
	if cause == io.EOF {
		return ErrPeerClosed
	}
	return cause
}

// subscriberPanicked is told by the bus.
func (c *conn) subscriberPanicked(v any, stack []byte) {
	if c.link == nil { // a ConnectTo that failed
		c.core.logPanic(netip.AddrPort{}, v, stack)
		return
	}
	c.panicked(v, stack)
}

// panicked logs a panic in a callback, and ends the connection.
func (c *conn) panicked(v any, stack []byte) {
	c.core.logPanic(c.RemoteAddr(), v, stack)
	c.abort(ErrPanic)
}

// hold keeps the connection's slot.
func (c *conn) hold() { c.holds.Add(1) }

// release lets go of what hold kept.
func (c *conn) release() {
	if c.holds.Add(-1) == 0 {
		c.core.slots.Release()
	}
}
