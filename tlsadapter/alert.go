package tlsadapter

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
)

// Errors of a Session. Those of crypto/tls and crypto/x509 are wrapped: *tls.CertificateVerificationError and
// tls.RecordHeaderError are reached with errors.As, and the peer's alerts are a *PeerError.
var (
	// ErrNotEstablished: Open, Seal, CloseNotify, CloseRead or Detach before the handshake was complete.
	ErrNotEstablished = errors.New("tlsadapter: the handshake is not complete")
	// ErrTruncated: the stream ended without the peer's close_notify, so that it may have been cut by somebody else
	// (RFC 8446, section 6.1). It matches io.ErrUnexpectedEOF.
	ErrTruncated = fmt.Errorf("tlsadapter: the stream ended without close_notify: %w", io.ErrUnexpectedEOF)
	// ErrWriteClosed: Seal after CloseNotify, or Detach after both sides' close_notify. It matches net.ErrClosed.
	ErrWriteClosed = fmt.Errorf("tlsadapter: close_notify was sent: %w", net.ErrClosed)
	// ErrUseless: the peer sent much that carries no data, e.g. key updates with little between them.
	ErrUseless = errors.New("tlsadapter: the peer sends too much that carries no data")
	// ErrAborted: the session was dropped with Abort. It matches net.ErrClosed.
	ErrAborted = fmt.Errorf("tlsadapter: session aborted: %w", net.ErrClosed)
	// ErrDetached: the session goes on as a *tls.Conn, see Detach. It matches net.ErrClosed.
	ErrDetached = fmt.Errorf("tlsadapter: session detached: %w", net.ErrClosed)
	// ErrRenegotiation: a client's tls.Config allows TLS 1.2 renegotiation, a handshake that could start within Open.
	ErrRenegotiation = errors.New("tlsadapter: tls.Config.Renegotiation must be tls.RenegotiateNever")
)

// PeerError is a fatal alert from the peer: it ended the session, and Alert says what it rejected.
// errors.As finds it, the tls.AlertError, and the *net.OpError ("remote error") of crypto/tls.
type PeerError struct {
	Alert tls.AlertError
	Err   error // of crypto/tls
}

func (e *PeerError) Error() string {
	if what, ok := rejections[e.Alert]; ok {
		return fmt.Sprintf("tlsadapter: the peer %s (alert %d: %v)", what, uint8(e.Alert), e.Alert)
	}
	return fmt.Sprintf("tlsadapter: the peer ended the session (alert %d: %v)", uint8(e.Alert), e.Alert)
}

func (e *PeerError) Unwrap() []error { return []error{e.Alert, e.Err} }

// rejections says what the peer of each alert did not like (RFC 8446, section 6.2; RFC 5246, section 7.2.2).
var rejections = map[tls.AlertError]string{
	10:  "received a message that it did not expect",
	20:  "could not authenticate a record: the stream was damaged or the keys differ",
	22:  "received a record that is too long",
	40:  "found no acceptable set of parameters: no common cipher suite, curve or signature algorithm, or (TLS 1.2) a client certificate that is missing",
	42:  "rejected our certificate: its authority, name, dates or signature",
	43:  "does not support our certificate's type",
	44:  "rejected our certificate as revoked",
	45:  "rejected our certificate as expired or not yet valid",
	46:  "rejected our certificate for an unspecified reason",
	47:  "received a value that is out of range or inconsistent",
	48:  "does not know the authority that signed our certificate",
	49:  "accepted our certificate but denies us access",
	50:  "could not decode a message",
	51:  "could not verify a signature or a Finished message",
	70:  "does not support the protocol version",
	71:  "demands stronger cipher suites",
	80:  "had an internal error",
	86:  "refused an inappropriate fallback to an older version",
	90:  "cancelled the handshake",
	109: "misses an extension",
	110: "received an extension that it did not offer",
	112: "does not serve the requested server name",
	116: "requires a client certificate and we presented none",
	120: "supports none of the offered application protocols",
}

// Describe names an error of a *tls.Conn as a Session names its own, e.g. with a *PeerError for the peer's alert. op is what was
// being done.
func Describe(op string, err error) error {
	if remote := (*net.OpError)(nil); errors.As(err, &remote) && remote.Op == "remote error" {
		if alert, ok := alertOf(remote.Err); ok {
			return &PeerError{Alert: alert, Err: err}
		}
	}
	return fmt.Errorf("tlsadapter: %s: %w", op, err)
}

// alertOf finds the number of an alert of crypto/tls, whose own type for them is not exported but prints the same.
func alertOf(err error) (tls.AlertError, bool) {
	text := err.Error()
	for i := range 256 {
		if alert := tls.AlertError(i); alert.Error() == text {
			return alert, true
		}
	}
	return 0, false
}
