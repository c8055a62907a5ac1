package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"gridstream/loop/tcp"
)

// Transport makes and carries links. Its methods may be called from any goroutine.
type Transport interface {
	// Dial connects to addr. It blocks until ctx is done.
	Dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error)
	// Attach makes a link of nc, which it owns from then on, also when it fails; then h is not called. It gives the link to set,
	// and then events to h. It blocks until OnOpen returned, and must not be called in a callback.
	Attach(nc *net.TCPConn, h Handler, set func(Link)) error
	// Batch calls f, which sends to many connections. What they get in batches that follow closely may go out together.
	Batch(f func())
	// Stats is a snapshot of the counters.
	Stats() Stats
	// Close ends every link at once, with ErrTransportClosed where there is no other reason, and every goroutine. All OnClose calls
	// have returned when it does. Idempotent. It must not be called in a callback.
	Close()
}

// Start starts a Transport.
type Start func(Config) (Transport, error)

// Config configures a Transport. Every field must be set, but for the time limits, where 0 is none.
type Config struct {
	Loops         int // event loops, where there are any
	OutboundLimit int // bytes that may wait for one connection's socket; an empty queue takes one write of any size
	Logger        *slog.Logger
	Socket        tcp.Socket // of those that are dialled; its KeepAlive is set again after a pause

	Idle   time.Duration // nothing read: ErrIdle
	Stall  time.Duration // bytes are queued and none leaves: ErrStall
	Linger time.Duration // closing makes no progress, or LingerMost times that in all
}

const (
	// LingerMost bounds a closing connection that does make progress: so many times Config.Linger.
	LingerMost = 10
	// LingerInput bounds what a closing connection drops, in bytes: more than what both kernels and the wire hold for a peer that
	// stops when it sees the end, little for one that goes on.
	LingerInput = 16 << 20
	// ProgressChecks: so many times within a stall or linger limit a congested socket is tried. The kernel calls it writable only
	// when a third of its buffer is free, which on a slow link can take longer than the limit, but takes bytes before that.
	ProgressChecks = 4
)

// Stats are a transport's counters.
type Stats struct {
	BytesReceived uint64
	BytesSent     uint64
	ReadsPaused   uint64

	// Of event loops, where there are any.
	LoopsHeldUp uint64        // times that one was late for long
	LoopLatency time.Duration // how long the slowest now takes to get to a task
}

// Reasons for which the transport itself ends a connection. Others are io.EOF for the peer's orderly close, the system's errors, a
// *PanicError, and what was given to Close, Abort and Detach.
var (
	ErrIdle        = errors.New("loop: idle timeout")
	ErrStall       = errors.New("loop: stall timeout")
	ErrLinger      = errors.New("loop: linger timeout")
	ErrLingerInput = errors.New("loop: the peer sends on after the end")
)

// Errors of the methods.
var (
	ErrClosed          = errors.New("loop: connection closed")
	ErrFull            = errors.New("loop: outbound queue full")
	ErrTransportClosed = errors.New("loop: closed")
)
