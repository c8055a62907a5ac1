package link

// Handler is what a connection's owner does with its events. The methods run where the connection is read, on its loop or
// its reader's goroutine, one at a time, and must not block, unless they say otherwise. A panic in one ends the connection
// with a *PanicError.
type Handler interface {
	// OnOpen is the first; what it sends goes out when it returns.
	OnOpen()
	// OnData takes what was read, all of it: b is only valid until it returns. No call begins after Close or Abort in a callback;
	// one on another goroutine may cross it.
	OnData(b []byte)
	// OnWake answers Sealing.Wake, and tells that the handshake of TLS.StartTLS is done.
	OnWake()
	// OnDrained tells, on any goroutine, that half of the queue is free again after a Write that found it full.
	OnDrained()
	// OnDeadline tells, on another goroutine, that the time limit of SetDeadline has come. It does not close.
	OnDeadline()
	// OnPanic tells, on the goroutine of the callback, that one panicked. The connection is aborted next.
	OnPanic(p *PanicError)
	// OnClose is the last, exactly once after OnOpen. The descriptor is gone, or about to go when it returns.
	OnClose(reason error)
}

// PanicError is the reason of a connection whose callback panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (*PanicError) Error() string { return "loop: panic in a callback" }

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
