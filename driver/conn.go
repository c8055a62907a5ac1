package driver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop"
)

// lastID is the last Conn.ID that was given out: unique in the process, so that it has to be global.
var lastID atomic.Uint64

// conn implements Conn on a link.
type conn struct {
	// Immutable after OnOpen.
	core    *core
	link    link
	id      uint64
	mailbox *mailbox // nil with OnPacket
	limiter *limiter // nil without limits
	secure  *secure  // nil without TLS
	inbound bool
	perIP   bool // counted in core.perIP

	// Owned by the loop.
	registered bool
	partial    *bytebufferpool.ByteBuffer // OnPacket: the beginning of a packet; nil: none

	// Atomic.
	attached      atomic.Bool // a ConnectTo's has its link
	established   atomic.Bool // from Established until closing begins
	authenticated atomic.Bool
	holds         atomic.Int32  // what keeps the connection's slot: the link, unread packets, queued events
	received      atomic.Uint64 // packets; written by the loop
	sent          atomic.Uint64 // packets
	value         atomic.Pointer[any]

	// Guarded by mu, a leaf.
	mu   sync.Mutex
	gone bool  // OnClose was called
	more *more // nil: nothing of it yet
}

// more is what few connections have. Guarded by conn.mu.
type more struct {
	drained chan struct{} // closed when the outbound buffer has room again, or never will; nil: nobody waits
	groups  []*Group
	unread  []byte         // of a connection that is adopted, until OnOpen; of one that was hijacked
	dialled netip.AddrPort // what ConnectTo was given, as the key of core.dials
}

func (c *conn) moreLocked() *more {
	if c.more == nil {
		c.more = new(more)
	}
	return c.more
}

var (
	_ Conn         = (*conn)(nil)
	_ loop.Handler = (*conn)(nil)
)

func (c *conn) ID() uint64                 { return c.id }
func (c *conn) RemoteAddr() netip.AddrPort { return c.link.RemoteAddr() }
func (c *conn) LocalAddr() netip.AddrPort  { return c.link.LocalAddr() }
func (c *conn) Inbound() bool              { return c.inbound }

func (c *conn) TLS() (tls.ConnectionState, bool) {
	if c.secure == nil {
		return tls.ConnectionState{}, false
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

func (c *conn) PauseReading()  { c.link.Pause(pauseUser) }
func (c *conn) ResumeReading() { c.link.Resume(pauseUser) }

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

func (c *conn) Send(packet []byte) error {
	err := c.send(packet)
	if err != nil && c.core.cfg.SlowConsumer == DisconnectSlow && errors.Is(err, ErrOutboundFull) {
		c.abort(ErrSlowConsumer)
	}
	return err
}

// send is Send without the policy for slow consumers.
func (c *conn) send(packet []byte) error {
	core := c.core
	if err := core.checkPacket(packet); err != nil {
		return &Error{Op: "Send", Code: ErrSend, Address: c.RemoteAddr(), Err: err}
	}
	if c.secure != nil && !c.secure.ready.Load() {
		return &Error{Op: "Send", Code: ErrSend, Address: c.RemoteAddr(), Err: ErrHandshaking}
	}
	err := c.link.Write(core.encoder, packet, len(packet)+core.overhead)
	if err != nil {
		return c.sendError(err)
	}
	c.sent.Add(1)
	core.stripe(c).packetsSent.Add(1)
	return nil
}

// sendFrame queues a packet that is encoded already, for Broadcast.
func (c *conn) sendFrame(frame []byte) bool {
	if c.secure != nil && !c.secure.ready.Load() {
		return false
	}
	err := c.link.Write(nil, frame, len(frame))
	if err == nil {
		c.sent.Add(1)
		c.core.stripe(c).packetsSent.Add(1)
		return true
	}
	if errors.Is(err, loop.ErrFull) {
		c.core.stripe(c).sendsRejected.Add(1)
		if c.core.cfg.SlowConsumer == DisconnectSlow {
			c.abort(ErrSlowConsumer)
		}
	}
	return false
}

func (c *conn) sendError(err error) error {
	cause := ErrConnClosed
	if errors.Is(err, loop.ErrFull) {
		cause = ErrOutboundFull
		c.core.stripe(c).sendsRejected.Add(1)
	}
	return &Error{Op: "Send", Code: ErrSend, Address: c.RemoteAddr(), Err: cause}
}

func (c *conn) SendContext(ctx context.Context, packet []byte) error {
	for {
		if err := ctx.Err(); err != nil {
			return &Error{Op: "SendContext", Code: ErrSend, Address: c.RemoteAddr(), Err: err}
		}
		err := c.send(packet)
		if err == nil || !errors.Is(err, ErrOutboundFull) {
			return err
		}
		// Wait for what happens after this point: try once more with the channel there.
		drained := c.whenDrained()
		if err := c.send(packet); err == nil || !errors.Is(err, ErrOutboundFull) {
			return err
		}
		select {
		case <-drained:
		case <-ctx.Done():
		}
	}
}

// whenDrained is closed at the next OnDrained or OnClose.
func (c *conn) whenDrained() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.moreLocked()
	if m.drained == nil {
		m.drained = make(chan struct{})
		if c.gone {
			close(m.drained)
		}
	}
	return m.drained
}

// OnDrained implements loop.Handler.
func (c *conn) OnDrained() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone && c.more != nil && c.more.drained != nil {
		close(c.more.drained)
		c.more.drained = nil
	}
}

func (c *conn) Close(reason error) {
	if reason == nil {
		reason = ErrDisconnected
	}
	c.link.Close(&given{reason})
	c.uncount()
}

// given is a reason that the application gave, which may wrap anything.
type given struct{ reason error }

func (g *given) Error() string { return g.reason.Error() }

// abort closes at once, and drops what is queued.
func (c *conn) abort(reason error) {
	c.link.Abort(reason)
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
	return c.established.Load() && c.link.State() == loop.Open
}

// OnOpen implements loop.Handler.
func (c *conn) OnOpen() {
	if c.secure != nil {
		c.beginHandshake()
		return
	}
	c.establish()
}

// establish makes the connection one that the application sees.
func (c *conn) establish() {
	core := c.core
	if !core.registry.add(c) {
		core.counters.acceptsRefused.Add(1)
		c.link.Abort(ErrConnected)
		return
	}
	c.registered = true
	if c.inbound {
		core.counters.accepted.Add(1)
		if d := core.cfg.LoginTimeout; d > 0 && !c.authenticated.Load() {
			if c.secure != nil {
				d = max(d-time.Since(c.secure.started), 1)
			}
			c.link.SetDeadline(d)
		}
	} else {
		core.counters.dialled.Add(1)
		core.hasOutcome(c)
	}
	c.established.Store(true)
	core.connections.Add(1)
	core.post(c, Event{Address: c.RemoteAddr(), Conn: c}, true)
	if core.closing.Load() {
		c.Close(ErrShutdown)
	}
	if b := c.takeUnread(); b != nil {
		c.receive(b)
	}
}

// OnData implements loop.Handler.
func (c *conn) OnData(b []byte) {
	if c.limiter != nil && !c.limiter.bytes.take(len(b)) {
		c.abort(ErrRateLimited)
		return
	}
	if c.secure != nil {
		c.decrypt(b)
		return
	}
	c.receive(b)
}

// takesData reports whether the application still gets packets.
func (c *conn) takesData() bool {
	return c.link.State() == loop.Open || c.secure != nil && c.secure.late
}

// receive takes bytes of the stream of frames.
func (c *conn) receive(b []byte) {
	if !c.takesData() {
		return
	}
	var packets int
	var err error
	if c.mailbox != nil {
		packets, err = c.mailbox.put(b)
	} else {
		packets, err = c.deliver(b)
	}
	if packets > 0 {
		c.received.Add(uint64(packets))
		c.core.stripe(c).packetsReceived.Add(uint64(packets))
		if c.limiter != nil && c.mailbox != nil && !c.limiter.packets.take(packets) {
			c.abort(ErrRateLimited)
			return
		}
	}
	if err != nil {
		if !errors.Is(err, ErrProtocol) {
			err = fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		c.abort(err)
	}
}

// deliver gives the whole packets in what was read so far to OnPacket, and keeps the rest.
func (c *conn) deliver(b []byte) (packets int, err error) {
	cfg := &c.core.cfg
	if c.partial != nil {
		c.partial.B = append(c.partial.B, b...)
		b = c.partial.B
	}
	for len(b) > 0 {
		packet, n, splitErr := cfg.Framing.Split(b, cfg.MaxPacketSize)
		if splitErr != nil || n == 0 {
			err = splitErr
			break
		}
		b = b[n:]
		if c.limiter != nil && !c.limiter.packets.take(1) {
			c.abort(ErrRateLimited)
			break
		}
		packets++
		if !c.onPacket(packet) || !c.takesData() {
			b = nil
		}
	}
	c.keep(b)
	return packets, err
}

// onPacket calls the application; false when it panicked.
func (c *conn) onPacket(packet []byte) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v, nil)
		}
	}()
	c.core.cfg.OnPacket(c, packet)
	return true
}

// keep holds on to the beginning of a packet.
func (c *conn) keep(rest []byte) {
	switch {
	case c.partial != nil && len(rest) == 0:
		bytebufferpool.Put(c.partial)
		c.partial = nil
	case c.partial != nil:
		c.partial.B = c.partial.B[:copy(c.partial.B, rest)]
	case len(rest) > 0:
		c.partial = bytebufferpool.Get()
		c.partial.B = append(c.partial.B, rest...)
	}
}

// OnWake implements loop.Handler.
func (c *conn) OnWake() {
	if c.secure != nil {
		c.endHandshake()
	}
}

// OnDeadline implements loop.Handler.
func (c *conn) OnDeadline() {
	switch {
	case c.secure != nil && !c.secure.ready.Load():
		c.abort(c.handshakeTimedOut())
	case c.inbound && c.core.cfg.LoginTimeout > 0 && !c.authenticated.Load():
		c.abort(ErrLoginTimeout)
	}
}

// OnPanic implements loop.Handler.
func (c *conn) OnPanic(p *loop.PanicError) { c.panicked(p.Value, p.Stack) }

// OnClose implements loop.Handler.
func (c *conn) OnClose(cause error) {
	if c.secure == nil || !c.endsInHandshake(cause) {
		c.close(cause)
	}
}

// close is the end of the connection.
func (c *conn) close(cause error) {
	core, remote := c.core, c.RemoteAddr()
	reason := c.reasonOf(cause)
	if c.secure != nil {
		reason = c.endSession(reason)
	}
	c.uncount()
	if reason == ErrHijacked {
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
	if c.perIP {
		core.perIP.release(remote.Addr())
	}
	if c.registered {
		core.registry.remove(c)
		core.counters.disconnected.Add(1)
		core.post(c, Event{Address: remote, Conn: c, Reason: reason}, false)
	} else if !c.inbound {
		core.connectFailed(c, remote, reason)
	} else if c.secure != nil && !c.secure.ready.Load() {
		core.counters.handshakesFailed.Add(1)
		core.cfg.Logger.Debug("driver: TLS handshake failed", "addr", remote, "err", reason)
	}
	c.release()
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
	case loop.ErrIdle:
		return ErrIdleTimeout
	case loop.ErrStall, loop.ErrLinger:
		return ErrStallTimeout
	case loop.ErrEngineClosed:
		return ErrShutdown
	}
	switch cause := cause.(type) {
	case *given:
		return cause.reason
	case *loop.PanicError:
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
