// Package link is what the driver asks of its connections, whatever carries them: event loops (package loop) or a goroutine
// each (package stdnet). They are streams of bytes with a bounded queue, that can be paused, and that deliver when they close.
package link

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"
)

// Link is one TCP connection. Its methods may be called from any goroutine, do not block unless they say so, and do nothing
// after it closed: it never acts on a descriptor that is no longer its own.
type Link interface {
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
	// SetRemoteAddr changes what RemoteAddr is. To be called in a callback, before anybody else knows the connection.
	SetRemoteAddr(netip.AddrPort)
	State() State
	// Write queues b, or with enc the frame of b, which takes at most most bytes: all or nothing. b may be reused on return.
	// ErrFull is followed by one OnDrained; ErrClosed is final.
	Write(enc Encoder, b []byte, most int) error
	// Close writes what is queued, sends FIN, waits for the peer's and closes, for as long as that makes progress within
	// Config.Linger. Input is dropped from now on. It reports whether reason is the one that counts: the first is.
	Close(reason error) bool
	// Abort closes at once, and drops what is queued. It reports as Close does.
	Abort(reason error) bool
	// Pause stops reading for the reason p. What is read already is still delivered.
	Pause(p Pause)
	// Resume takes the reason p back, and reads again when it was the last.
	Resume(p Pause)
	Paused() bool
	// SetDeadline has an open connection get OnDeadline d from now; 0 takes it back.
	SetDeadline(d time.Duration)
	// Detach takes an open connection out, as a net.Conn (a *tls.Conn after StartTLS), with the bytes that were queued and are
	// still to be written. The connection ends with reason. It blocks, and must not be called in a callback. Where it
	// fails for want of a descriptor the connection stays.
	Detach(reason error) (nc net.Conn, queued []byte, err error)
	// Buffered counts the bytes that wait for the socket.
	Buffered() int
	// Received counts the bytes read from the socket.
	Received() uint64
	// Sent counts the bytes that the kernel took.
	Sent() uint64
}

// Sealing is a Link whose handler does TLS itself, as a Sealer. *loop.Conn is one.
type Sealing interface {
	Link
	// Sealed is to be called in OnOpen or OnData: from now on nothing goes out unsealed.
	Sealed()
	// FlushSealer sends what the Sealer has to send by itself. ErrFull: it would be more than is allowed to wait; the peer does
	// not read what it asks for.
	FlushSealer() error
	// Wake has OnWake called. Wakes that were not answered yet may become one.
	Wake()
	// Execute runs f where callbacks run, soon, also after OnClose. A transport that closes meanwhile may never do it.
	Execute(f func())
	// KeepAwake is for a goroutine that computes and is about to yield with more to do. All connections' loops that had something to
	// do since the last call look once more before they wait.
	KeepAwake()
}

// TLS is a Link that does TLS itself.
type TLS interface {
	Link
	// StartTLS is to be called in OnOpen or OnData: a handshake follows, of which OnWake tells when it is done; unread is what was
	// received before. Until then nothing may be queued.
	StartTLS(cfg *tls.Config, client bool, unread []byte)
	// ConnectionState is the session's.
	ConnectionState() tls.ConnectionState
}
