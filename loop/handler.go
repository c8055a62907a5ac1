package loop

import (
	"runtime/debug"
)

// Handler is what a connection's owner does with its events. The methods run on the connection's loop, one at a time,
// and must not block, unless they say otherwise. A panic in one ends the connection with a *PanicError.
type Handler interface {
	// OnOpen is the first; what it sends goes out when it returns.
	OnOpen()
	// OnData takes what was read, all of it: b is only valid until it returns. No call begins after Close or Abort on the loop;
	// one on another goroutine may cross it.
	OnData(b []byte)
	// OnWake answers Conn.Wake.
	OnWake()
	// OnDrained tells, on any goroutine, that half of the queue is free again after a Write that found it full.
	OnDrained()
	// OnDeadline tells, on the clock's goroutine, that the time limit of SetDeadline has come. It does not close.
	OnDeadline()
	// OnPanic tells, on the goroutine of the callback, that one panicked. The connection is aborted next.
	OnPanic(p *PanicError)
	// OnClose is the last, exactly once after OnOpen. The descriptor is gone, or about to go when it returns.
	OnClose(reason error)
}

// Encoder writes packets into the outbound queue without a copy in between.
type Encoder interface {
	AppendFrame(dst, packet []byte) []byte
}

// Sealer turns what is queued into what goes on the wire, e.g. TLS records. Its methods are called by whoever flushes, one at
// a time, and must neither block nor call the connection. An error ends the connection.
type Sealer interface {
	// Seal appends to dst what has to go out by itself, e.g. an alert, and then the wire form of plain, which may be
	// empty.
	Seal(dst, plain []byte) ([]byte, error)
	// SealEnd appends what tells the peer that nothing follows.
	SealEnd(dst []byte) ([]byte, error)
}

// guard runs a callback and contains its panic to this connection.
func (c *Conn) guard(callback func()) {
	defer c.contain()
	callback()
}

func (c *Conn) contain() {
	if v := recover(); v != nil {
		p := &PanicError{Value: v, Stack: debug.Stack()}
		c.h.OnPanic(p)
		c.Abort(p)
	}
}
