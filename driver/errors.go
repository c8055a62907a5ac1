package driver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
)

const prefix = "driver: "

// ResultCode is GridMate's Driver::ErrorCodes as an error. Every error that an operation of this package
// returns carries one: errors.Is(err, ErrSocketBind), or [CodeOf].
type ResultCode uint32

const (
	// OK is EC_OK: what CodeOf says of a nil error.
	OK ResultCode = iota
	// ErrSocketCreate is EC_SOCKET_CREATE: the driver or its sockets could not be made, or are not there.
	ErrSocketCreate
	// ErrSocketListen is EC_SOCKET_LISTEN: StartListen, StartListenOn and StopListen.
	ErrSocketListen
	// ErrSocketClose is EC_SOCKET_CLOSE: Close, Shutdown and DisconnectFrom.
	ErrSocketClose
	// ErrSocketMakeNonblock is EC_SOCKET_MAKE_NONBLOCK.
	ErrSocketMakeNonblock
	// ErrSocketBind is EC_SOCKET_BIND: the address or the port cannot be had.
	ErrSocketBind
	// ErrSocketSockOpt is EC_SOCKET_SOCK_OPT: a socket option was refused.
	ErrSocketSockOpt
	// ErrSocketConnect is EC_SOCKET_CONNECT: ConnectTo, at once or later as the reason of an event.
	ErrSocketConnect
	// ErrSocketAccept is EC_SOCKET_ACCEPT: a connection could not be taken over.
	ErrSocketAccept
	// ErrSecureConfig is EC_SECURE_CONFIG.
	ErrSecureConfig
	// ErrSecureCreate is EC_SECURE_CREATE.
	ErrSecureCreate
	// ErrSecureCert is EC_SECURE_CERT.
	ErrSecureCert
	// ErrSecurePKey is EC_SECURE_PKEY.
	ErrSecurePKey
	// ErrSecureCACert is EC_SECURE_CA_CERT.
	ErrSecureCACert
	// ErrSend is EC_SEND: nothing of the packet was sent.
	ErrSend
	// ErrSendAddressNotBound is EC_SEND_ADDRESS_NOT_BOUND: there is no connection to that address.
	ErrSendAddressNotBound
	// ErrReceive is EC_RECEIVE.
	ErrReceive
)

var resultNames = [...]string{
	OK:                     "ok",
	ErrSocketCreate:        "socket create",
	ErrSocketListen:        "socket listen",
	ErrSocketClose:         "socket close",
	ErrSocketMakeNonblock:  "socket make nonblocking",
	ErrSocketBind:          "socket bind",
	ErrSocketSockOpt:       "socket option",
	ErrSocketConnect:       "socket connect",
	ErrSocketAccept:        "socket accept",
	ErrSecureConfig:        "secure configuration",
	ErrSecureCreate:        "secure create",
	ErrSecureCert:          "secure certificate",
	ErrSecurePKey:          "secure private key",
	ErrSecureCACert:        "secure certificate authority",
	ErrSend:                "send",
	ErrSendAddressNotBound: "send address not bound",
	ErrReceive:             "receive",
}

// Error names the code.
func (c ResultCode) Error() string {
	if uint64(c) < uint64(len(resultNames)) {
		return prefix + resultNames[c]
	}
	return fmt.Sprintf(prefix+"result code %d", uint32(c))
}

// CodeOf is the ResultCode that err carries: OK for nil, and ErrSocketCreate, GridMate's most general failure, for
// an error that carries none.
func CodeOf(err error) ResultCode {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var c ResultCode
	if errors.As(err, &c) {
		return c
	}
	return ErrSocketCreate
}

// Error is what every operation returns: what was tried, GridMate's code, the peer, and the cause. It matches
// (errors.Is) its Code and its cause.
type Error struct {
	Op      string         // the method, e.g. "Send"
	Code    ResultCode     //
	Address netip.AddrPort // the peer or the local endpoint; invalid where there is none
	Err     error          // the cause; may be nil
}

// Error is "driver: Op address: cause", with the code's name where there is no cause.
func (e *Error) Error() string {
	s := prefix + e.Op
	if e.Address.IsValid() {
		s += " " + e.Address.String()
	}
	cause := e.Err
	if cause == nil {
		cause = e.Code
	}
	return s + ": " + strings.TrimPrefix(cause.Error(), prefix)
}

// Unwrap gives the code and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

// Timeout reports whether the cause was a time limit, as net.Error has it: one of this driver's, a context's or the
// system's.
func (e *Error) Timeout() bool {
	var cause interface{ Timeout() bool }
	return errors.Is(e.Err, os.ErrDeadlineExceeded) || errors.As(e.Err, &cause) && cause.Timeout()
}

// Reasons for which a connection ends: Event.Reason is one of them, or wraps the system's or TLS's own error.
// The first reason of a connection wins. The time-outs match os.ErrDeadlineExceeded, ErrPeerClosed io.EOF, and what
// closing this side causes net.ErrClosed.
var (
	// ErrPeerClosed: the peer closed the connection in an orderly way.
	ErrPeerClosed error = &reason{text: "the peer closed the connection", as: io.EOF}
	// ErrDisconnected: this side closed it, with DisconnectFrom or Conn.Close(nil).
	ErrDisconnected error = &reason{text: "disconnected by this side", as: net.ErrClosed}
	// ErrIdleTimeout: nothing was received for Config.IdleTimeout.
	ErrIdleTimeout error = &reason{text: "nothing received within the idle timeout", as: os.ErrDeadlineExceeded}
	// ErrLoginTimeout: Conn.Authenticated was not called within Config.LoginTimeout of the accept.
	ErrLoginTimeout error = &reason{text: "not authenticated within the login timeout", as: os.ErrDeadlineExceeded}
	// ErrProxyTimeout: no PROXY protocol header within Config.ProxyTimeout. Such a connection has no event; its reason is logged.
	ErrProxyTimeout error = &reason{text: "no PROXY protocol header within the proxy timeout", as: os.ErrDeadlineExceeded}
	// ErrProxyHeader: what came from one of Config.TrustedProxies is no PROXY protocol header; wraps what is wrong. Logged likewise.
	ErrProxyHeader error = &reason{text: "not a PROXY protocol header"}
	// ErrHandshakeTimeout: the TLS handshake was not done within Config.HandshakeTimeout.
	ErrHandshakeTimeout error = &reason{text: "TLS handshake not done within the handshake timeout", as: os.ErrDeadlineExceeded}
	// ErrConnectTimeout: ConnectTo had no answer within Config.ConnectTimeout.
	ErrConnectTimeout error = &reason{text: "no answer within the connect timeout", as: os.ErrDeadlineExceeded}
	// ErrStallTimeout: bytes were queued and none left for Config.StallTimeout.
	ErrStallTimeout error = &reason{text: "queued bytes did not leave within the stall timeout", as: os.ErrDeadlineExceeded}
	// ErrProtocol: the peer sent a frame that cannot be, e.g. a length of 0 or over MaxPacketSize.
	ErrProtocol error = &reason{text: "protocol error"}
	// ErrSlowConsumer: the outbound buffer was full and Config.SlowConsumer is DisconnectSlow.
	ErrSlowConsumer error = &reason{text: "slow consumer"}
	// ErrRateLimited: the peer exceeded PacketsPerSecond or BytesPerSecond.
	ErrRateLimited error = &reason{text: "rate limit exceeded"}
	// ErrPanic: a callback panicked; the value and its stack went to the Logger.
	ErrPanic error = &reason{text: "panic in a callback"}
	// ErrHijacked: Conn.Hijack took the connection out of the driver.
	ErrHijacked error = &reason{text: "hijacked"}
	// ErrShutdown: Shutdown or Close of the driver.
	ErrShutdown error = &reason{text: "the driver was shut down", as: net.ErrClosed}
)

// Causes that an Error wraps.
var (
	// ErrOutboundFull: the connection's outbound buffer has no room for the packet.
	ErrOutboundFull error = &reason{text: "outbound buffer full"}
	// ErrNotInitialized: the driver needs Initialize (or InitializeSecurity) first.
	ErrNotInitialized error = &reason{text: "not initialized"}
	// ErrAlreadyInitialized: Initialize was called before.
	ErrAlreadyInitialized error = &reason{text: "already initialized"}
	// ErrListening: the driver listens already.
	ErrListening error = &reason{text: "already listening"}
	// ErrNotListening: the driver does not listen.
	ErrNotListening error = &reason{text: "not listening"}
	// ErrConnecting: ConnectTo is on its way to that address already.
	ErrConnecting error = &reason{text: "already connecting to that address"}
	// ErrConnected: there is a connection to that address already.
	ErrConnected error = &reason{text: "already connected to that address"}
	// ErrNotConnected: there is no connection to that address.
	ErrNotConnected error = &reason{text: "no connection to that address"}
	// ErrTooManyConnections: MaxConnections are in use.
	ErrTooManyConnections error = &reason{text: "MaxConnections are in use"}
	// ErrHandshaking: the TLS handshake of an adopted connection is not complete.
	ErrHandshaking error = &reason{text: "the TLS handshake is not complete"}
	// ErrInCallback: the call would wait for the callback that it is made in, or for others that wait for that. Go on in another
	// goroutine, or in Update; see DispatchOnUpdate.
	ErrInCallback error = &reason{text: "called in a callback that it would wait for"}
	// ErrEmptyPacket: a packet has at least one byte.
	ErrEmptyPacket error = &reason{text: "empty packet"}
	// ErrPacketTooLarge: the packet has more than MaxSendSize bytes.
	ErrPacketTooLarge error = &reason{text: "packet larger than MaxSendSize"}
	// ErrDriverClosed: Close or Shutdown was called.
	ErrDriverClosed error = &reason{text: "the driver is closed", as: net.ErrClosed}
	// ErrConnClosed: the connection is closed or closing.
	ErrConnClosed error = &reason{text: "the connection is closed", as: net.ErrClosed}
)

// LeftError is the cause of a Shutdown that ended before its connections did. What is counted was dropped.
type LeftError struct {
	Connections int   // established ones, and those that were about to be
	QueuedBytes int   // that were not sent
	Err         error // the context's
}

// Error says it in a line.
func (e *LeftError) Error() string {
	return fmt.Sprintf("%d connections with %d queued bytes were left: %v", e.Connections, e.QueuedBytes, e.Err)
}

// Unwrap gives the context's error.
func (e *LeftError) Unwrap() error { return e.Err }

// reason is a sentinel error that also matches one of the standard library's.
type reason struct {
	text string
	as   error
}

func (r *reason) Error() string        { return prefix + r.text }
func (r *reason) Is(target error) bool { return r.as != nil && target == r.as }

// Timeout reports whether a time limit is behind it, as net.Error has it.
func (r *reason) Timeout() bool { return r.as == os.ErrDeadlineExceeded }
