package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/logging"
)

// Config configures an Engine. Every field must be set, but for KeepAlive, and the time limits, where
// 0 is none.
type Config struct {
	Loops         int // event loops
	OutboundLimit int // bytes that may wait for one connection's socket; an empty queue takes one write of any size
	Logger        *slog.Logger
	KeepAlive     net.KeepAliveConfig // of connections that have keep-alive probes; set again after a pause

	Idle   time.Duration // nothing read: ErrIdle
	Stall  time.Duration // bytes are queued and none leaves: ErrStall
	Linger time.Duration // closing makes no progress, or lingerMost times that in all
}

// lingerMost bounds a closing connection that does make progress: so many times Config.Linger.
const lingerMost = 10

// Reasons for which the engine itself ends a connection. Others are io.EOF for the peer's orderly close, the system's errors, a
// *PanicError, and what was given to Close, Abort and Detach.
var (
	ErrIdle   = errors.New("loop: idle timeout")
	ErrStall  = errors.New("loop: stall timeout")
	ErrLinger = errors.New("loop: linger timeout")
)

// Errors of the engine's methods.
var (
	ErrClosed        = errors.New("loop: connection closed")
	ErrFull          = errors.New("loop: outbound queue full")
	ErrEngineClosed  = errors.New("loop: engine closed")
	ErrNotRegistered = errors.New("loop: the event loop could not register the connection")
)

// PanicError is the reason of a connection whose callback panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (*PanicError) Error() string { return "loop: panic in a callback" }

// Stats are an engine's counters.
type Stats struct {
	BytesReceived uint64
	BytesSent     uint64
	ReadsPaused   uint64
}

// gnetLogger gives gnet's messages to a slog.Logger. gnet's own logger is global to the process and writes to stdout.
type gnetLogger struct{ *slog.Logger }

var _ logging.Logger = gnetLogger{}

func (l gnetLogger) log(level slog.Level, format string, args []any) {
	if ctx := context.Background(); l.Enabled(ctx, level) {
		l.Log(ctx, level, fmt.Sprintf("gnet: "+format, args...))
	}
}

func (l gnetLogger) Debugf(format string, args ...any) { l.log(slog.LevelDebug, format, args) }
func (l gnetLogger) Infof(format string, args ...any)  { l.log(slog.LevelDebug, format, args) }
func (l gnetLogger) Warnf(format string, args ...any)  { l.log(slog.LevelWarn, format, args) }
func (l gnetLogger) Errorf(format string, args ...any) { l.log(slog.LevelError, format, args) }
func (l gnetLogger) Fatalf(format string, args ...any) { l.log(slog.LevelError, format, args) }
