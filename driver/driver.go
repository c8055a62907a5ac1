package driver

import (
	"context"
	"crypto/tls"
	"iter"
	"net"
	"net/netip"
	"time"
)

// Driver is GridMate's stream socket driver. Every method may be called from any goroutine; those that block say
// so. Callbacks are Config.OnPacket, and with DispatchOnLoop the subscribers of Events: they run where connections are read, on an
// event loop or, in package stdnet, a connection's goroutine, and must not block. Before Initialize and after Close the methods that
// need a socket return an error that says it.
type Driver interface {
	// Initialize readies the driver for StartListen and ConnectTo. Once. ErrSocketBind for an address that is not
	// one or that this host does not have, or a port that somebody listens on. Until StartListen another socket can still take the port;
	// then that fails with ErrSocketListen.
	Initialize(Bind) error
	// StartListen accepts connections. backlog <= 0 is the system's somaxconn. At MaxConnections the driver stops
	// accepting, and goes on when somebody leaves; who waits, waits in the backlog.
	StartListen(backlog int) error
	// StopListen stops accepting; established connections stay; StartListen works again. Connections that wait in
	// the system's backlog are refused.
	StopListen() error
	// IsListening reports whether StartListen is in effect.
	IsListening() bool
	// Port is the port that the driver is bound to; 0 before Initialize.
	Port() uint16

	// ConnectTo dials addr and returns at once; the outcome is an event: Established, or a single Disconnected whose
	// Reason says why not. ErrSocketConnect wraps ErrConnected as long as there is a connection to addr, one that is closing included: its
	// Disconnected says when that is over.
	ConnectTo(addr netip.AddrPort) error
	// DisconnectFrom sends what is queued, then closes; it returns at once, and the end is an event. It also gives
	// up a ConnectTo under way.
	DisconnectFrom(addr netip.AddrPort) error
	// IsConnectedTo reports whether there is an established connection to addr.
	IsConnectedTo(addr netip.AddrPort) bool
	// NumberOfConnections counts the established connections.
	NumberOfConnections() int

	// Send queues packet for the connection to the address: all or nothing. It does not block, and packet may be reused on
	// return. ErrSend wraps ErrOutboundFull, ErrEmptyPacket, ErrPacketTooLarge or net.ErrClosed; where there is no
	// connection the code is ErrSendAddressNotBound.
	Send(to netip.AddrPort, packet []byte) error
	// Receive copies the next packet into buf: n == 0 with a nil error means none is waiting. It does not block.
	// Connections take turns. A buf too small for the packet is ErrReceive wrapping io.ErrShortBuffer, n is the
	// size that it takes, and the packet stays first in line. What a connection received before it ended can
	// still be received: after its Disconnected, so that who forgets a player there has to receive what is left first; and with
	// DispatchOnUpdate a packet may be received before the Update that brings its Established. ReceiveConn, of a
	// Stream and a SecureStream, tells whose it is.
	Receive(buf []byte) (n int, from netip.AddrPort, err error)
	// WaitForData blocks until Receive has something, ctx is done, or the driver is closed. It must not be called in a callback, whose
	// event loop would bring the data.
	WaitForData(ctx context.Context) error
	// Update delivers queued events on the caller's goroutine; see DispatchOnUpdate.
	Update()

	// Broadcast queues packet for each connection that to approves of, all where to is nil, and returns for how
	// many. It encodes once. to is called on the caller's goroutine with no lock held.
	Broadcast(packet []byte, to func(Conn) bool) int
	// Conn finds the established connection to addr.
	Conn(addr netip.AddrPort) (Conn, bool)
	// Conns are the established connections; those that come or go meanwhile may or may not be among them.
	Conns() iter.Seq[Conn]
	// Adopt takes over an established TCP connection that something else accepted or dialled: an http.Hijacker,
	// socket activation, an older process. nc is a *net.TCPConn, or one WithUnread or WithRemoteAddr, or what Hijack of a plain connection
	// returned; deadlines on it are lifted; its socket options stay as they are. No PROXY protocol header is looked for. The driver owns it from then on, also when Adopt fails. A secure driver starts the server's side
	// of the handshake on it. Adopt may wait for an event loop: in a callback it fails, wrapping ErrInCallback.
	Adopt(nc net.Conn) (Conn, error)
	// StartListenOn is StartListen on the caller's listener, which the driver owns from then on. It gives connections that Adopt
	// would take.
	StartListenOn(ln net.Listener) error
	// Events is where to subscribe to connects and disconnects.
	Events() *EventBus
	// Stats is a snapshot of the driver's counters.
	Stats() Stats

	// MaxNumConnections is MaxConnections, or what its zero value came to.
	MaxNumConnections() int
	// MaxSendSize is the largest packet, in bytes.
	MaxSendSize() int
	// PacketOverheadSize is the most bytes that framing adds to a packet.
	PacketOverheadSize() int

	// Shutdown stops listening and dialling, tells each ShutdownSubscriber, closes every connection with ErrShutdown, over
	// Config.ShutdownSpread, which sends what is queued, and then does as Close. It blocks until that is done or ctx is; then a
	// *LeftError, which wraps ctx's error, says what was left.
	Shutdown(ctx context.Context) error
	// Close ends everything at once, dropping what is queued. All Disconnected events are delivered, and no goroutine is left, when it
	// returns. Idempotent. In a callback, which it would have to wait for, or where another Close waits for the Update that calls it, it
	// closes behind that, and says so with an error that wraps ErrInCallback; so does Shutdown, which then goes on until the deadline of
	// its context, also if that is cancelled, and logs what it would return.
	Close() error
}

// Conn is one connection. It is safe from any goroutine, and never refers to another connection, also after it
// closed.
type Conn interface {
	// ID is unique in the process and never reused.
	ID() uint64
	// RemoteAddr is the peer; an IPv4 peer of a dual-stack socket has its IPv4 address.
	RemoteAddr() netip.AddrPort
	// LocalAddr is this side.
	LocalAddr() netip.AddrPort
	// Inbound reports whether it was accepted (or adopted) rather than dialled.
	Inbound() bool
	// Send is Driver.Send to this connection.
	Send(packet []byte) error
	// SendContext is Send that waits for room in the outbound buffer until ctx is done. In a callback it cannot wait: without room it
	// fails at once, wrapping ErrInCallback.
	SendContext(ctx context.Context, packet []byte) error
	// Close sends what is queued, then closes; it returns at once. Nothing more is received. The first reason wins;
	// nil is ErrDisconnected.
	Close(reason error)
	// Authenticated tells that the application accepted the login: LoginTimeout no longer applies.
	Authenticated()
	// PauseReading stops reading from the socket, so that the kernel's window closes and the peer has to wait. What
	// was already read may still be delivered.
	PauseReading()
	// ResumeReading undoes PauseReading.
	ResumeReading()
	// Hijack takes the connection out of the driver, as an ordinary net.Conn: a *net.TCPConn, or a *tls.Conn where secure; with
	// bytes that were received and not yet delivered, or a peer that a PROXY protocol header named, one that embeds it, and has the bytes
	// come first out of its Read, and the peer in its RemoteAddr. What is queued is written before it returns. The driver's time limits end, and deadlines are the caller's to set. The connection
	// ends with ErrHijacked. It blocks: in a callback it fails, wrapping ErrInCallback, and the connection stays,
	// as it does where there is no descriptor for it (EMFILE).
	Hijack() (net.Conn, error)
	// SetValue keeps the application's own state, e.g. its player.
	SetValue(v any)
	// Value is what SetValue kept; nil before.
	Value() any
	// TLS is the state of the TLS session; false on a plain connection.
	TLS() (tls.ConnectionState, bool)
	// Stats is a snapshot of the connection's counters.
	Stats() ConnStats
}

// Stats are a driver's counters since it was made, and its gauges.
type Stats struct {
	Connections int // established now
	Listening   bool

	Accepted         uint64 // connections accepted or adopted that were established
	Dialled          uint64 // connections established with ConnectTo
	Disconnected     uint64 // established connections that ended
	Ends             Ends   // the same, by their reasons
	ConnectsFailed   uint64 // ConnectTo that failed
	HandshakesFailed uint64 // accepted connections whose TLS handshake failed
	AcceptErrors     uint64 // failed accepts, e.g. for want of descriptors
	AcceptsRefused   uint64 // accepted and closed: over MaxConnectionsPerIP, an address already connected, not TCP

	LoopLatency time.Duration // how long the slowest event loop takes to get to what it is asked to do; sampled each 100 ms
	LoopsHeldUp uint64        // times that a loop was late by 100 ms or more: a callback that takes long, or too much to do

	ProxyHeadersFailed uint64 // accepted from one of Config.TrustedProxies, without a PROXY protocol header

	PacketsReceived uint64
	PacketsSent     uint64 // queued for the socket
	BytesReceived   uint64 // on the wire
	BytesSent       uint64 // on the wire
	SendsRejected   uint64 // packets, for want of room in an outbound buffer; not those that SendContext had to wait for
	Panics          uint64 // in callbacks
	ReadsPaused     uint64 // times that a full inbound buffer or PauseReading stopped reading from a connection
}

// ConnStats are a connection's counters, and its gauges.
type ConnStats struct {
	PacketsReceived uint64
	PacketsSent     uint64 // queued for the socket
	BytesReceived   uint64 // on the wire
	BytesSent       uint64 // on the wire

	OutboundBuffered int // bytes that wait for the socket
	InboundBuffered  int // bytes that wait for Receive, or for the rest of their packet
	Paused           bool
}
