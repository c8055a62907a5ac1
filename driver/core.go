package driver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop"
)

// core is a driver but for what carries its connections.
type core struct {
	// Immutable.
	cfg      Config
	encoder  loop.Encoder // cfg.Framing
	overhead int
	slots    *loop.Slots
	registry *registry
	inbox    *inbox // nil with OnPacket
	bus      EventBus
	queue    eventQueue // DispatchOnUpdate
	perIP    perIP
	newLinks func(*Config, loop.Socket) (transport, error)
	security *security // nil without TLS

	// Immutable after Initialize; see transport.
	links atomic.Pointer[transport]

	// Atomic.
	connections atomic.Int64 // established ones
	closing     atomic.Bool  // written under mu
	counters    counters
	stripes     [16]stripe

	// tasks are the goroutines that dial and accept.
	tasks sync.WaitGroup

	// Guarded by mu.
	mu        sync.Mutex
	socket    loop.Socket
	bound     *loop.Bound
	acceptor  *loop.Acceptor           // nil: not listening
	listening netip.AddrPort           // of acceptor
	dials     map[netip.AddrPort]*dial // ConnectTo under way
	attached  int                      // links that are there or on their way
	empty     chan struct{}            // closed when attached is 0 after closing began
	closed    chan struct{}            // closed when Close is done; nil: not begun
}

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

// counters are written seldom: as connections come and go.
type counters struct {
	accepted, dialled, disconnected, connectsFailed, handshakesFailed atomic.Uint64
	acceptErrors, acceptsRefused, panics                              atomic.Uint64
}

// stripe is the counters that are written for each packet, by the connections of one stripe: a cache line of their own.
type stripe struct {
	packetsReceived, packetsSent, sendsRejected atomic.Uint64
	_                                           [64 - 3*8]byte
}

func (d *core) stripe(c *conn) *stripe { return &d.stripes[c.id%uint64(len(d.stripes))] }

// reservedDescriptors are left to the rest of the process where MaxConnections is derived: listeners, pollers, files,
// and a thirty-second of all.
const reservedDescriptors = 128

func newCore(cfg Config, newLinks func(*Config, loop.Socket) (transport, error)) (*core, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, &Error{Op: "New", Code: ErrSocketCreate, Err: err}
	}
	if cfg.MaxConnections == 0 {
		limit := loop.DescriptorLimit()
		cfg.MaxConnections = max(limit-limit/32-reservedDescriptors, limit/2, 1)
	}
	d := &core{
		cfg:      cfg,
		encoder:  cfg.Framing,
		overhead: cfg.Framing.Overhead(),
		slots:    loop.NewSlots(cfg.MaxConnections),
		registry: newRegistry(),
		perIP:    perIP{max: cfg.MaxConnectionsPerIP},
		newLinks: newLinks,
		dials:    make(map[netip.AddrPort]*dial),
		empty:    make(chan struct{}),
	}
	if cfg.OnPacket == nil {
		d.inbox = newInbox()
	}
	return d, nil
}

// Initialize implements Driver.
func (d *core) Initialize(b Bind) error {
	addr, err := b.AddrPort()
	if err != nil {
		return &Error{Op: "Initialize", Code: ErrSocketBind, Err: err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Load() {
		return &Error{Op: "Initialize", Code: ErrSocketCreate, Err: ErrDriverClosed}
	}
	if d.bound != nil {
		return &Error{Op: "Initialize", Code: ErrSocketCreate, Address: d.bound.Address(), Err: ErrAlreadyInitialized}
	}
	socket := loop.Socket{
		Network:       b.Network(),
		Address:       addr,
		ReceiveBuffer: b.ReceiveBufferSize,
		SendBuffer:    b.SendBufferSize,
		NoDelay:       d.cfg.NoDelay == NoDelayOn,
		KeepAlive:     d.cfg.KeepAlive,
	}
	bound, err := loop.Bind(socket)
	if err != nil {
		return &Error{Op: "Initialize", Code: bindCode(err), Address: addr, Err: err}
	}
	links, err := d.newLinks(&d.cfg, socket)
	if err != nil {
		bound.Close()
		return &Error{Op: "Initialize", Code: ErrSocketCreate, Err: err}
	}
	d.socket, d.bound = socket, bound
	if d.security != nil {
		d.security.start(d.cfg.HandshakeWorkers)
	}
	d.links.Store(&links)
	return nil
}

func bindCode(err error) ResultCode {
	var option *loop.SockOptError
	var call *os.SyscallError
	switch {
	case errors.As(err, &option):
		return ErrSocketSockOpt
	case errors.As(err, &call) && call.Syscall == "socket":
		return ErrSocketCreate
	case errors.As(err, &call) && call.Syscall == "setnonblock":
		return ErrSocketMakeNonblock
	}
	return ErrSocketBind
}

// transport is nil before Initialize.
func (d *core) transport() transport {
	if t := d.links.Load(); t != nil {
		return *t
	}
	return nil
}

// readyLocked is the error of an operation that needs Initialize.
func (d *core) readyLocked(op string, code ResultCode, addr netip.AddrPort) error {
	switch {
	case d.closing.Load():
		return &Error{Op: op, Code: code, Address: addr, Err: ErrDriverClosed}
	case d.bound == nil:
		return &Error{Op: op, Code: code, Address: addr, Err: ErrNotInitialized}
	}
	return nil
}

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
	if d.acceptor != nil {
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
	d.listening = loop.AddrPort(ln.Addr())
	d.acceptor = loop.Accept(loop.AcceptorConfig{
		Listener: ln,
		Slots:    d.slots,
		Logger:   d.cfg.Logger,
		Accept:   d.accept,
		Failed:   func(error) { d.counters.acceptErrors.Add(1) },
	})
	d.tasks.Add(1)
	go func(a *loop.Acceptor) {
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
	if d.acceptor == nil {
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

// IsListening implements Driver.
func (d *core) IsListening() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.acceptor != nil
}

// Port implements Driver.
func (d *core) Port() uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.acceptor != nil:
		return d.listening.Port()
	case d.bound != nil:
		return d.bound.Address().Port()
	}
	return 0
}

// accept takes over a connection from the acceptor, with its slot.
func (d *core) accept(nc net.Conn) error {
	c := d.newConn(true)
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		nc.Close()
		return d.lost(c, fmt.Errorf("a listener gave a %T, not a *net.TCPConn", nc))
	}
	if err := d.socket.TuneAccepted(tc); err != nil {
		nc.Close()
		return d.lost(c, err)
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

// newConn makes a connection that has no link yet. Its slot is taken.
func (d *core) newConn(inbound bool) *conn {
	c := &conn{core: d, id: lastID.Add(1), inbound: inbound, limiter: newLimiter(&d.cfg)}
	c.holds.Store(1)
	if d.inbox != nil {
		c.mailbox = &mailbox{conn: c, inbox: d.inbox}
	}
	if d.security != nil {
		c.secure = d.security.newSecure(inbound)
	}
	return c
}

// attach gives c its link, nc, and blocks until it is established or gone. It owns nc. An error means that it never was,
// that there is no event, and that the slot is still to be released.
func (d *core) attach(c *conn, nc *net.TCPConn) error {
	remote := loop.AddrPort(nc.RemoteAddr()).Addr()
	if c.inbound && d.perIP.max > 0 {
		if !d.perIP.acquire(remote) {
			nc.Close()
			d.counters.acceptsRefused.Add(1)
			return fmt.Errorf("%v has MaxConnectionsPerIP %d connections", remote, d.perIP.max)
		}
		c.perIP = true
	}
	err := ErrDriverClosed
	if d.linkComes() {
		if err = d.transport().attach(nc, c); err == nil {
			return nil
		}
		d.linkGone()
	}
	nc.Close()
	if c.perIP {
		d.perIP.release(remote)
	}
	return attachError(err)
}

func attachError(err error) error {
	if errors.Is(err, loop.ErrEngineClosed) {
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

func (d *core) emptyLocked() {
	if d.attached == 0 && d.closing.Load() {
		select {
		case <-d.empty:
		default:
			close(d.empty)
		}
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
	nc, err := d.transport().dial(ctx, addr)
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
		c.release()
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

// connectFailed reports a ConnectTo that came to nothing.
func (d *core) connectFailed(c *conn, addr netip.AddrPort, err error) {
	d.hasOutcome(c)
	d.counters.connectsFailed.Add(1)
	if errors.Is(err, ErrDriverClosed) {
		err = ErrShutdown
	}
	err = &Error{Op: "ConnectTo", Code: ErrSocketConnect, Address: addr, Err: err}
	d.post(c, Event{Address: addr, Reason: err}, false)
}

// DisconnectFrom implements Driver.
func (d *core) DisconnectFrom(addr netip.AddrPort) error {
	d.mu.Lock()
	if err := d.readyLocked("DisconnectFrom", ErrSocketClose, addr); err != nil {
		d.mu.Unlock()
		return err
	}
	dial := d.dials[key(addr)]
	d.mu.Unlock()
	if dial != nil {
		dial.giveUp(ErrDisconnected)
		return nil
	}
	if c := d.registry.get(addr); c != nil {
		c.Close(ErrDisconnected)
		return nil
	}
	return &Error{Op: "DisconnectFrom", Code: ErrSocketClose, Address: addr, Err: ErrNotConnected}
}

// IsConnectedTo implements Driver.
func (d *core) IsConnectedTo(addr netip.AddrPort) bool {
	c := d.registry.get(addr)
	return c != nil && c.isOpen()
}

// NumberOfConnections implements Driver.
func (d *core) NumberOfConnections() int { return int(d.connections.Load()) }

func (d *core) checkPacket(packet []byte) error {
	switch n := len(packet); {
	case n == 0:
		return ErrEmptyPacket
	case n > d.cfg.MaxPacketSize:
		return fmt.Errorf("%w: %d of %d bytes", ErrPacketTooLarge, n, d.cfg.MaxPacketSize)
	}
	return nil
}

// Send implements Driver.
func (d *core) Send(to netip.AddrPort, packet []byte) error {
	if c := d.registry.get(to); c != nil {
		return c.Send(packet)
	}
	if err := d.ready("Send", ErrSend, to); err != nil {
		return err
	}
	return &Error{Op: "Send", Code: ErrSendAddressNotBound, Address: to, Err: ErrNotConnected}
}

func (d *core) ready(op string, code ResultCode, addr netip.AddrPort) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.readyLocked(op, code, addr)
}

// Receive implements Driver.
func (d *core) Receive(buf []byte) (int, netip.AddrPort, error) {
	fail := func(cause error) (int, netip.AddrPort, error) {
		return 0, netip.AddrPort{}, &Error{Op: "Receive", Code: ErrReceive, Err: cause}
	}
	if d.inbox == nil {
		return fail(errPushed)
	}
	for {
		m := d.inbox.pop()
		if m == nil {
			if d.closing.Load() || d.links.Load() == nil {
				if err := d.ready("Receive", ErrReceive, netip.AddrPort{}); err != nil {
					return 0, netip.AddrPort{}, err
				}
			}
			return 0, netip.AddrPort{}, nil
		}
		n, more, last, err := m.take(buf)
		from := m.conn.RemoteAddr()
		if err != nil {
			d.inbox.pushFront(m)
			return n, from, &Error{Op: "Receive", Code: ErrReceive, Address: from, Err: err}
		}
		if more {
			d.inbox.push(m)
		}
		if last {
			m.conn.release()
		}
		if n > 0 {
			return n, from, nil
		}
	}
}

var errPushed = errors.New("Config.OnPacket is set: packets go there")

// WaitForData implements Driver.
func (d *core) WaitForData(ctx context.Context) error {
	err := d.ready("WaitForData", ErrReceive, netip.AddrPort{})
	switch {
	case d.inbox == nil:
		err = &Error{Op: "WaitForData", Code: ErrReceive, Err: errPushed}
	case err == nil || errors.Is(err, ErrDriverClosed):
		if err = d.inbox.wait(ctx); err != nil {
			err = &Error{Op: "WaitForData", Code: ErrReceive, Err: err}
		}
	}
	return err
}

// Broadcast implements Driver.
func (d *core) Broadcast(packet []byte, to func(Conn) bool) int {
	if d.checkPacket(packet) != nil {
		return 0
	}
	frame := bytebufferpool.Get()
	defer bytebufferpool.Put(frame)
	frame.B = d.cfg.Framing.AppendFrame(frame.B, packet)
	sent := 0
	d.registry.each(func(c *conn) bool {
		if c.isOpen() && (to == nil || to(c)) && c.sendFrame(frame.B) {
			sent++
		}
		return true
	})
	return sent
}

// Conn implements Driver.
func (d *core) Conn(addr netip.AddrPort) (Conn, bool) {
	if c := d.registry.get(addr); c != nil && c.isOpen() {
		return c, true
	}
	return nil, false
}

// Conns implements Driver.
func (d *core) Conns() iter.Seq[Conn] {
	return func(yield func(Conn) bool) {
		d.registry.each(func(c *conn) bool { return !c.isOpen() || yield(c) })
	}
}

// Events implements Driver.
func (d *core) Events() *EventBus { return &d.bus }

// Stats implements Driver.
func (d *core) Stats() Stats {
	n := &d.counters
	s := Stats{
		Connections:      d.NumberOfConnections(),
		Listening:        d.IsListening(),
		Accepted:         n.accepted.Load(),
		Dialled:          n.dialled.Load(),
		Disconnected:     n.disconnected.Load(),
		ConnectsFailed:   n.connectsFailed.Load(),
		HandshakesFailed: n.handshakesFailed.Load(),
		AcceptErrors:     n.acceptErrors.Load(),
		AcceptsRefused:   n.acceptsRefused.Load(),
		Panics:           n.panics.Load(),
	}
	for i := range d.stripes {
		s.PacketsReceived += d.stripes[i].packetsReceived.Load()
		s.PacketsSent += d.stripes[i].packetsSent.Load()
		s.SendsRejected += d.stripes[i].sendsRejected.Load()
	}
	if t := d.transport(); t != nil {
		s.BytesReceived, s.BytesSent, s.ReadsPaused = t.bytes()
	}
	return s
}

// MaxNumConnections implements Driver.
func (d *core) MaxNumConnections() int { return d.cfg.MaxConnections }

// MaxSendSize implements Driver.
func (d *core) MaxSendSize() int { return d.cfg.MaxPacketSize }

// PacketOverheadSize implements Driver.
func (d *core) PacketOverheadSize() int { return d.overhead }

// Shutdown implements Driver.
func (d *core) Shutdown(ctx context.Context) error {
	d.beginClosing()
	d.registry.each(func(c *conn) bool { c.Close(ErrShutdown); return true })
	if d.security != nil {
		d.security.abandonHandshakes()
	}
	if inCallback() {
		go d.Shutdown(ctx)
		return &Error{Op: "Shutdown", Code: ErrSocketClose, Err: errInCallback}
	}
	var err error
	select {
	case <-d.empty:
	case <-ctx.Done():
		err = &Error{Op: "Shutdown", Code: ErrSocketClose, Err: ctx.Err()}
	}
	return errors.Join(err, d.Close())
}

// beginClosing lets nothing new in.
func (d *core) beginClosing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Swap(true) {
		return
	}
	if err := d.stopListenLocked(); err != nil {
		d.cfg.Logger.Warn("driver: closing the listener", "err", err)
	}
	for _, dial := range d.dials {
		dial.giveUp(ErrShutdown)
	}
	d.emptyLocked()
}

// Close implements Driver.
func (d *core) Close() error {
	d.beginClosing()
	if inCallback() {
		go d.Close()
		return &Error{Op: "Close", Code: ErrSocketClose, Err: errInCallback}
	}
	d.mu.Lock()
	if closed := d.closed; closed != nil {
		d.mu.Unlock()
		if !inUpdate() {
			<-closed
		}
		return nil
	}
	closed := make(chan struct{})
	d.closed = closed
	d.mu.Unlock()

	defer close(closed)
	if t := d.transport(); t != nil {
		t.close()
	}
	d.tasks.Wait()
	if d.security != nil {
		d.security.stop()
	}
	d.deliverRest()
	if d.inbox != nil {
		close(d.inbox.closed)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bound != nil {
		d.bound.Close()
	}
	return nil
}

// errInCallback: the goroutine that a callback runs on is one that closing waits for.
var errInCallback = errors.New("called in a callback, which closing waits for: it goes on behind it")

func (d *core) logPanic(addr netip.AddrPort, v any, stack []byte) {
	d.counters.panics.Add(1)
	if stack == nil {
		stack = debug.Stack()
	}
	d.cfg.Logger.Error("driver: a callback panicked", "addr", addr, "panic", v, "stack", string(stack))
}
