package driver

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"
)

// Family is GridMate's BSDSocketFamilyType.
type Family int

const (
	// IPv4 is BSD_AF_INET, the default.
	IPv4 Family = iota
	// IPv6 is BSD_AF_INET6: IPv6 alone.
	IPv6
	// DualStack is BSD_AF_UNSPEC: one socket for both. IPv4 peers have their IPv4 address in RemoteAddr.
	DualStack
)

// String is "IPv4", "IPv6" or "DualStack".
func (f Family) String() string { return name(f, "Family", "IPv4", "IPv6", "DualStack") }

// name is the one that v has among names, or what Go would write for a value that has none.
func name[T ~int](v T, kind string, names ...string) string {
	if v >= 0 && int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", kind, int(v))
}

// Bind is what Initialize takes in GridMate: where the driver listens, and the address, not the port, from which it connects.
type Bind struct {
	Family            Family
	Address           string // numeric IP; "" is every interface
	Port              uint16 // 0 lets the system choose: see Driver.Port
	ReceiveBufferSize int    // SO_RCVBUF in bytes; 0 is the system's default
	SendBufferSize    int    // SO_SNDBUF in bytes; 0 is the system's default
}

// Network is the name that package net has for the family: "tcp4", "tcp6" or "tcp".
func (b Bind) Network() string {
	switch b.Family {
	case IPv4:
		return "tcp4"
	case IPv6:
		return "tcp6"
	}
	return "tcp"
}

// AddrPort parses Address and Port and checks the whole of b. The error names the field and the value.
func (b Bind) AddrPort() (netip.AddrPort, error) {
	if b.Family < IPv4 || b.Family > DualStack {
		return netip.AddrPort{}, fmt.Errorf("Bind.Family %d is none of IPv4, IPv6, DualStack", int(b.Family))
	}
	for _, size := range []struct {
		name  string
		value int
	}{{"ReceiveBufferSize", b.ReceiveBufferSize}, {"SendBufferSize", b.SendBufferSize}} {
		if size.value < 0 {
			return netip.AddrPort{}, fmt.Errorf("Bind.%s %d is negative", size.name, size.value)
		}
	}
	if b.Address == "" {
		if b.Family == IPv4 {
			return netip.AddrPortFrom(netip.IPv4Unspecified(), b.Port), nil
		}
		return netip.AddrPortFrom(netip.IPv6Unspecified(), b.Port), nil
	}
	ip, err := netip.ParseAddr(b.Address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("Bind.Address %q is not a numeric IP address", b.Address)
	}
	if b.Family == IPv4 && !ip.Unmap().Is4() {
		return netip.AddrPort{}, fmt.Errorf("Bind.Address %q is not an IPv4 address, and Bind.Family is IPv4", b.Address)
	}
	if b.Family == IPv6 && !ip.Is6() {
		return netip.AddrPort{}, fmt.Errorf("Bind.Address %q is not an IPv6 address, and Bind.Family is IPv6", b.Address)
	}
	if b.Family == IPv4 {
		ip = ip.Unmap()
	}
	return netip.AddrPortFrom(ip, b.Port), nil
}

// Dispatch says on whose goroutine events are delivered.
type Dispatch int

const (
	// DispatchOnLoop delivers an event at once, where the connection is read: before its first packet, and after
	// its last. A subscriber must not block.
	DispatchOnLoop Dispatch = iota
	// DispatchOnUpdate queues events until the application calls Update, and delivers them there. As long as an
	// event waits, its connection counts against MaxConnections: that bounds the queue.
	DispatchOnUpdate
)

// String is "DispatchOnLoop" or "DispatchOnUpdate".
func (d Dispatch) String() string { return name(d, "Dispatch", "DispatchOnLoop", "DispatchOnUpdate") }

// SlowConsumer says what happens to a connection whose outbound buffer is full.
type SlowConsumer int

const (
	// RejectSend: Send fails with ErrSend wrapping ErrOutboundFull, and the connection stays.
	RejectSend SlowConsumer = iota
	// DisconnectSlow: Send fails likewise, and the connection ends with ErrSlowConsumer.
	DisconnectSlow
)

// String is "RejectSend" or "DisconnectSlow".
func (s SlowConsumer) String() string { return name(s, "SlowConsumer", "RejectSend", "DisconnectSlow") }

// NoDelay is the TCP_NODELAY option.
type NoDelay int

const (
	// NoDelayOn sends small packets at once.
	NoDelayOn NoDelay = iota
	// NoDelayOff leaves Nagle's algorithm on, as GridMate does.
	NoDelayOff
)

// String is "NoDelayOn" or "NoDelayOff".
func (n NoDelay) String() string { return name(n, "NoDelay", "NoDelayOn", "NoDelayOff") }

// What the zero value of a Config stands for.
const (
	DefaultMaxPacketSize      = 65535
	DefaultInboundBufferSize  = 64 << 10
	DefaultOutboundBufferSize = 64 << 10
	DefaultConnectTimeout     = 10 * time.Second
	DefaultHandshakeTimeout   = 10 * time.Second
	DefaultStallTimeout       = 30 * time.Second
	DefaultLingerTimeout      = 5 * time.Second
	DefaultProxyTimeout       = 5 * time.Second
)

// Config configures a driver. The zero value works. Sizes are in bytes.
type Config struct {
	MaxConnections     int // 0: as many as RLIMIT_NOFILE leaves room for; Windows has no such limit: 16 million
	MaxPacketSize      int // the largest packet, without framing; 0: 65535, the most a 2-byte length can say
	InboundBufferSize  int // per connection, packets waiting for Receive; at least one packet; 0: 64 KiB
	OutboundBufferSize int // per connection, bytes waiting for the socket; at least one packet; 0: 64 KiB

	// OnPacket, if set, gets every packet where the connection is read, on its event loop or, in package stdnet, its goroutine, in
	// order; packet is valid until it returns, and it must not block, nor end its goroutine (runtime.Goexit, FailNow of testing). If nil,
	// packets wait for Receive.
	OnPacket func(c Conn, packet []byte)

	Framing    Framing      // nil: LengthPrefix16BE, GridMate's wire format
	EventLoops int          // 0: GOMAXPROCS; without meaning in package stdnet
	Dispatch   Dispatch     // DispatchOnLoop (default) or DispatchOnUpdate
	Logger     *slog.Logger // nil: discard

	// Time limits; a connection that exceeds one ends with the matching reason. They are kept to within some 50 ms.
	ConnectTimeout   time.Duration // ConnectTo; 0: 10 s
	HandshakeTimeout time.Duration // TLS; 0: 10 s
	LoginTimeout     time.Duration // accepted connections, from accept until Conn.Authenticated; 0: none
	IdleTimeout      time.Duration // nothing received; 0: none
	StallTimeout     time.Duration // bytes are queued and none leaves; 0: 30 s
	LingerTimeout    time.Duration // closing: what is queued makes no progress; ten times that in all; 0: 5 s

	// ShutdownSpread is the time over which Shutdown closes the connections, in no order, so that players do not all come back in
	// the same moment; at most three quarters of what its context leaves. 0: at once.
	ShutdownSpread time.Duration

	// Limits on what one peer may take; 0: none.
	MaxConnectionsPerIP int // accepted connections; an IPv6 peer counts by its /64
	PacketsPerSecond    int // per connection, token bucket of one second's worth, and of the time that reading was paused
	BytesPerSecond      int // likewise; exceeding either ends the connection with ErrRateLimited

	// TrustedProxies are the load balancers in front: an accepted connection from one of these networks must begin with a PROXY
	// protocol header, version 1 or 2, before TLS, and is from then on the peer's that it names: RemoteAddr, events, limits. From
	// anybody else a header is not believed, nor looked for; nor on a connection that is adopted. nil: none.
	TrustedProxies []netip.Prefix
	ProxyTimeout   time.Duration // from accept until that header is there; 0: 5 s

	SlowConsumer     SlowConsumer        // RejectSend (default): Send fails; DisconnectSlow: the connection ends with ErrSlowConsumer
	HandshakeWorkers int                 // 0: GOMAXPROCS; without meaning in package stdnet
	NoDelay          NoDelay             // NoDelayOn (default) or NoDelayOff (Nagle's algorithm, GridMate's choice)
	KeepAlive        net.KeepAliveConfig // TCP keep-alive probes; the zero value sends none
}

// WithDefaults checks c and fills in what its zero values stand for, except MaxConnections. The error names every
// field that is wrong, with its value. Implementations of Driver call it; applications need not.
func (c Config) WithDefaults() (Config, error) {
	var errs []error
	for _, f := range []struct {
		name  string
		value int
	}{
		{"MaxConnections", c.MaxConnections},
		{"MaxPacketSize", c.MaxPacketSize},
		{"InboundBufferSize", c.InboundBufferSize},
		{"OutboundBufferSize", c.OutboundBufferSize},
		{"EventLoops", c.EventLoops},
		{"MaxConnectionsPerIP", c.MaxConnectionsPerIP},
		{"PacketsPerSecond", c.PacketsPerSecond},
		{"BytesPerSecond", c.BytesPerSecond},
		{"HandshakeWorkers", c.HandshakeWorkers},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("Config.%s %d is negative", f.name, f.value))
		}
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
	}{
		{"ConnectTimeout", &c.ConnectTimeout},
		{"HandshakeTimeout", &c.HandshakeTimeout},
		{"LoginTimeout", &c.LoginTimeout},
		{"IdleTimeout", &c.IdleTimeout},
		{"StallTimeout", &c.StallTimeout},
		{"LingerTimeout", &c.LingerTimeout},
		{"ProxyTimeout", &c.ProxyTimeout},
		{"ShutdownSpread", &c.ShutdownSpread},
	} {
		if *f.value < 0 {
			errs = append(errs, fmt.Errorf("Config.%s %v is negative", f.name, *f.value))
		}
		const forever = 10 * 365 * 24 * time.Hour // ten of it, and now, are still a time
		*f.value = min(*f.value, forever)
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"Dispatch", int(c.Dispatch), int(DispatchOnUpdate)},
		{"SlowConsumer", int(c.SlowConsumer), int(DisconnectSlow)},
		{"NoDelay", int(c.NoDelay), int(NoDelayOff)},
	} {
		if f.value < 0 || f.value > f.max {
			errs = append(errs, fmt.Errorf("Config.%s %d is unknown", f.name, f.value))
		}
	}

	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			errs = append(errs, fmt.Errorf("Config.TrustedProxies[%d] %v is not a network", i, p))
		}
	}

	if c.Framing == nil {
		c.Framing = LengthPrefix16BE
	}
	if most := c.Framing.MaxPacketSize(); most <= 0 {
		errs = append(errs, fmt.Errorf("Config.Framing has a MaxPacketSize of %d", most))
	}
	if n := c.Framing.Overhead(); n < 0 {
		errs = append(errs, fmt.Errorf("Config.Framing has an Overhead of %d", n))
	}
	setDefault(&c.MaxPacketSize, min(DefaultMaxPacketSize, c.Framing.MaxPacketSize()))
	if most := c.Framing.MaxPacketSize(); c.MaxPacketSize > most {
		errs = append(errs, fmt.Errorf("Config.MaxPacketSize %d is more than the %d that Config.Framing can express", c.MaxPacketSize, most))
	}
	setDefault(&c.InboundBufferSize, DefaultInboundBufferSize)
	setDefault(&c.OutboundBufferSize, DefaultOutboundBufferSize)
	setDefault(&c.EventLoops, runtime.GOMAXPROCS(0))
	setDefault(&c.HandshakeWorkers, runtime.GOMAXPROCS(0))
	setDefault(&c.ConnectTimeout, DefaultConnectTimeout)
	setDefault(&c.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&c.StallTimeout, DefaultStallTimeout)
	setDefault(&c.LingerTimeout, DefaultLingerTimeout)
	setDefault(&c.ProxyTimeout, DefaultProxyTimeout)
	const unlimited = math.MaxInt / 4
	c.InboundBufferSize, c.OutboundBufferSize = min(c.InboundBufferSize, unlimited), min(c.OutboundBufferSize, unlimited)
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
	for i, p := range c.TrustedProxies {
		c.TrustedProxies[i] = unmapped(p)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// unmapped is p as a network of IPv4, which peers' addresses are, where it is one of ::ffff:0:0/96.
func unmapped(p netip.Prefix) netip.Prefix {
	const bits = 96
	if !p.Addr().Is4In6() || p.Bits() < bits {
		return p
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-bits)
}
