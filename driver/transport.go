package driver

import (
	"context"
	"net"
	"net/netip"
	"time"

	"gridstream/loop"
)

// transport is what carries connections: the event loops.
type transport interface {
	// dial connects to addr. It blocks until ctx is done.
	dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error)
	// attach makes nc, which it owns, the link of c: c.OnOpen has returned when it does. It blocks.
	attach(nc *net.TCPConn, c *conn) error
	// bytes are the totals on the wire.
	bytes() (received, sent, pauses uint64)
	// close ends every link: c.OnClose of all has returned when it does.
	close()
}

// link is one connection's stream of bytes, as *loop.Conn has it.
type link interface {
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
	State() loop.State
	Write(enc loop.Encoder, b []byte, most int) error
	Close(reason error) bool
	Abort(reason error) bool
	Pause(loop.Pause)
	Resume(loop.Pause)
	Paused() bool
	SetDeadline(time.Duration)
	Sealed()
	FlushSealer() error
	Wake()
	Detach(reason error) (nc *net.TCPConn, queued []byte, err error)
	Buffered() int
	Received() uint64
	Sent() uint64
}

// Reasons for which reading is paused.
const (
	pauseUser      loop.Pause = 1 << iota // Conn.PauseReading
	pauseInbound                          // a full inbound buffer
	pauseHandshake                        // handshake bytes that no worker has come to yet
)

// engineTransport is the transport on event loops.
type engineTransport struct {
	engine *loop.Engine
	socket loop.Socket
}

func newEngineTransport(cfg *Config, socket loop.Socket) (transport, error) {
	engine, err := loop.NewEngine(loop.Config{
		Loops:         cfg.EventLoops,
		OutboundLimit: cfg.OutboundBufferSize,
		Logger:        cfg.Logger,
		KeepAlive:     cfg.KeepAlive,
		Idle:          cfg.IdleTimeout,
		Stall:         cfg.StallTimeout,
		Linger:        cfg.LingerTimeout,
	})
	if err != nil {
		return nil, err
	}
	return &engineTransport{engine: engine, socket: socket}, nil
}

func (t *engineTransport) dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	return t.socket.Dial(ctx, addr)
}

func (t *engineTransport) attach(nc *net.TCPConn, c *conn) error {
	l := new(loop.Conn)
	c.link = l
	return t.engine.Attach(nc, l, c)
}

func (t *engineTransport) bytes() (received, sent, pauses uint64) {
	s := t.engine.Stats()
	return s.BytesReceived, s.BytesSent, s.ReadsPaused
}

func (t *engineTransport) close() { t.engine.Close() }
