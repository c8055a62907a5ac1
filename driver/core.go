package driver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// core is a driver but for what carries its connections.
type core struct {
	// Immutable.
	cfg      Config
	encoder  link.Encoder // cfg.Framing
	overhead int
	slots    *tcp.Slots
	registry *registry
	inbox    *inbox // nil with OnPacket
	bus      EventBus
	queue    eventQueue // DispatchOnUpdate
	perIP    perIP
	start    link.Start
	security *security // nil without TLS

	// Immutable after Initialize; see transport.
	links atomic.Pointer[link.Transport]

	// Atomic.
	connections atomic.Int64 // established ones
	closing     atomic.Bool  // written under mu
	counters    counters
	ends        ends
	stripes     [16]stripe

	wrongListener sync.Once // is logged

	// tasks are the goroutines that dial and accept.
	tasks sync.WaitGroup

	// Guarded by mu.
	mu        sync.Mutex
	socket    tcp.Socket
	bound     *tcp.Bound
	acceptor  *tcp.Acceptor            // nil: not listening
	listening netip.AddrPort           // of acceptor
	dials     map[netip.AddrPort]*dial // ConnectTo under way
	attached  int                      // links that are there or on their way
	pending   map[*conn]struct{}       // attached and not established; see isPending
	empty     chan struct{}            // closed when attached is 0 after closing began
	closed    chan struct{}            // closed when Close is done; nil: not begun
}

// counters are written seldom: as connections come and go.
type counters struct {
	accepted, dialled, disconnected, connectsFailed, handshakesFailed atomic.Uint64
	acceptErrors, acceptsRefused, panics, proxyHeadersFailed          atomic.Uint64
}

// stripe is the counters that are written for each packet, by the connections of one stripe: a cache line of their own.
type stripe struct {
	packetsReceived, packetsSent, sendsRejected atomic.Uint64
	_                                           [64 - 3*8]byte
}

func (d *core) stripe(c *conn) *stripe { return &d.stripes[c.id%uint64(len(d.stripes))] }

// Where MaxConnections is derived, reservedDescriptors are left to the rest of the process, listeners, files, and a thirty-second of all;
// loopDescriptors to each event loop: two pollers, and two times two to spare.
const (
	reservedDescriptors = 128
	loopDescriptors     = 8
)

func newCore(cfg Config, start link.Start) (*core, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, &Error{Op: "New", Code: ErrSocketCreate, Err: err}
	}
	if cfg.MaxConnections == 0 {
		limit := tcp.DescriptorLimit()
		cfg.MaxConnections = max(limit-limit/32-reservedDescriptors-loopDescriptors*cfg.EventLoops, limit/2, 1)
	}
	d := &core{
		cfg:      cfg,
		encoder:  cfg.Framing,
		overhead: cfg.Framing.Overhead(),
		slots:    tcp.NewSlots(cfg.MaxConnections),
		registry: newRegistry(),
		perIP:    perIP{max: cfg.MaxConnectionsPerIP},
		start:    start,
		dials:    make(map[netip.AddrPort]*dial),
		empty:    make(chan struct{}),
	}
	if cfg.OnPacket == nil {
		d.inbox = newInbox()
	}
	return d, nil
}

// Initialize implements Driver.
func (d *core) Initialize(b Bind) error { return d.initialize(b, func() {}) }

// initialize calls succeeds when nothing can fail any more, before the first connection.
func (d *core) initialize(b Bind, succeeds func()) error {
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
	socket := tcp.Socket{
		Network:       b.Network(),
		Address:       addr,
		ReceiveBuffer: b.ReceiveBufferSize,
		SendBuffer:    b.SendBufferSize,
		NoDelay:       d.cfg.NoDelay == NoDelayOn,
		KeepAlive:     d.cfg.KeepAlive,
	}
	bound, err := tcp.Bind(socket)
	if err != nil {
		return &Error{Op: "Initialize", Code: bindCode(err), Address: addr, Err: err}
	}
	links, err := d.start(link.Config{
		Loops:         d.cfg.EventLoops,
		OutboundLimit: d.cfg.OutboundBufferSize,
		Logger:        d.cfg.Logger,
		Socket:        socket,
		Idle:          d.cfg.IdleTimeout,
		Stall:         d.cfg.StallTimeout,
		Linger:        d.cfg.LingerTimeout,
	})
	if err != nil {
		bound.Close()
		return &Error{Op: "Initialize", Code: ErrSocketCreate, Err: err}
	}
	succeeds()
	d.socket, d.bound = socket, bound
	d.links.Store(&links)
	return nil
}

func bindCode(err error) ResultCode {
	var option *tcp.SockOptError
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
func (d *core) transport() link.Transport {
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
	n, c, err := d.receive("Receive", buf)
	if c == nil {
		return n, netip.AddrPort{}, err
	}
	return n, c.RemoteAddr(), err
}

// ReceiveConn is Receive that tells the connection, with its Value, also when that has ended since; nil where there is no packet.
func (d *core) ReceiveConn(buf []byte) (int, Conn, error) {
	n, c, err := d.receive("ReceiveConn", buf)
	if c == nil {
		return n, nil, err
	}
	return n, c, err
}

func (d *core) receive(op string, buf []byte) (int, *conn, error) {
	fail := func(cause error) (int, *conn, error) {
		return 0, nil, &Error{Op: op, Code: ErrReceive, Err: cause}
	}
	if d.inbox == nil {
		return fail(errPushed)
	}
	for {
		over := d.closing.Load() && d.isEmpty() || d.links.Load() == nil // before it is found empty, or the last packet may come between
		m := d.inbox.pop()
		if m == nil {
			if over {
				if err := d.ready(op, ErrReceive, netip.AddrPort{}); err != nil {
					return 0, nil, err
				}
			}
			return 0, nil, nil
		}
		n, more, last, err := m.take(buf)
		if err != nil {
			d.inbox.pushFront(m)
			return n, m.conn, &Error{Op: op, Code: ErrReceive, Address: m.conn.RemoteAddr(), Err: err}
		}
		if more {
			d.inbox.push(m)
		}
		if last {
			m.conn.release()
		}
		if n > 0 {
			return n, m.conn, nil
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
	t := d.transport()
	if t == nil {
		return 0
	}
	sent := 0
	t.Batch(func() {
		d.registry.each(func(c *conn) bool {
			if c.isOpen() && (to == nil || to(c)) && c.sendFrame(frame.B) {
				sent++
			}
			return true
		})
	})
	d.stripes[0].packetsSent.Add(uint64(sent))
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

		ProxyHeadersFailed: n.proxyHeadersFailed.Load(),
		Ends:               d.ends.load(),
	}
	for i := range d.stripes {
		s.PacketsReceived += d.stripes[i].packetsReceived.Load()
		s.PacketsSent += d.stripes[i].packetsSent.Load()
		s.SendsRejected += d.stripes[i].sendsRejected.Load()
	}
	if t := d.transport(); t != nil {
		n := t.Stats()
		s.BytesReceived, s.BytesSent, s.ReadsPaused = n.BytesReceived, n.BytesSent, n.ReadsPaused
		s.LoopLatency, s.LoopsHeldUp = n.LoopLatency, n.LoopsHeldUp
	}
	return s
}

// MaxNumConnections implements Driver.
func (d *core) MaxNumConnections() int { return d.cfg.MaxConnections }

// MaxSendSize implements Driver.
func (d *core) MaxSendSize() int { return d.cfg.MaxPacketSize }

// PacketOverheadSize implements Driver.
func (d *core) PacketOverheadSize() int { return d.overhead }

func (d *core) logPanic(addr netip.AddrPort, v any, stack []byte) {
	d.counters.panics.Add(1)
	if stack == nil {
		stack = debug.Stack()
	}
	d.cfg.Logger.Error("driver: a callback panicked", "addr", addr, "panic", v, "stack", string(stack))
}

// split is Framing.Split, held to its contract.
func (d *core) split(b []byte) (packet []byte, n int, err error) {
	most := d.cfg.MaxPacketSize
	packet, n, err = d.cfg.Framing.Split(b, most)
	switch {
	case err != nil:
		return nil, 0, err
	case n == 0 && len(b)-d.overhead >= most:
		return nil, 0, fmt.Errorf("%w: no frame in %d bytes", ErrProtocol, len(b))
	case n < 0 || n > len(b):
		return nil, 0, fmt.Errorf("%w: Config.Framing found a frame of %d bytes in %d", ErrProtocol, n, len(b))
	}
	return packet, n, nil
}
