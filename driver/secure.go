package driver

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
	"gridstream/tlsadapter"
)

// SecureStream is a Stream whose connections are TLS: GridMate's StreamSecureSocketDriver. InitializeSecurity takes the
// place of Initialize. Established means that the handshake is complete.
type SecureStream struct{ *core }

var _ Driver = (*SecureStream)(nil)

// NewSecure makes a driver, as New does.
func NewSecure(cfg Config) (*SecureStream, error) {
	start, err := onLoops()
	if err != nil {
		return nil, err
	}
	return NewSecureOn(cfg, start)
}

// NewSecureOn is to NewSecure as NewOn is to New. Where the connections are link.TLS, they do the handshakes themselves.
func NewSecureOn(cfg Config, start link.Start) (*SecureStream, error) {
	d, err := newCore(cfg, start)
	if err != nil {
		return nil, err
	}
	d.security = newSecurity(d)
	return &SecureStream{d}, nil
}

// Initialize is an error: a SecureStream never falls back to plaintext. Call InitializeSecurity.
func (s *SecureStream) Initialize(Bind) error {
	return &Error{Op: "Initialize", Code: ErrSecureConfig, Err: errors.New("a SecureStream needs InitializeSecurity")}
}

// InitializeSecurity readies the driver for StartListen and ConnectTo, as Initialize does for a Stream. What is wrong with
// desc is told with ErrSecureCert, ErrSecurePKey, ErrSecureCACert or ErrSecureConfig; a certificate that is not valid now is only warned of in
// the log, as the clock may be what is wrong.
func (s *SecureStream) InitializeSecurity(b Bind, desc SecureDesc) error {
	configs, err := desc.configs()
	if err != nil {
		return withOp("InitializeSecurity", err)
	}
	if err := s.initialize(b, func() { s.security.configs.Store(configs) }); err != nil {
		return withOp("InitializeSecurity", err)
	}
	configs.warnOfDates(s.cfg.Logger)
	return nil
}

// ReloadSecurity has new handshakes use desc. Established connections, and handshakes under way, stay as they are. On an
// error the old one stays in use; it is one where a server would lose its certificate. Dates are as for InitializeSecurity.
func (s *SecureStream) ReloadSecurity(desc SecureDesc) error {
	if err := s.ready("ReloadSecurity", ErrSecureConfig, tcp.AddrPort(nil)); err != nil {
		return err
	}
	configs, err := desc.configs()
	if err != nil {
		return withOp("ReloadSecurity", err)
	}
	if err := configs.serverErr(); err != nil && s.security.serverErr() == nil {
		return &Error{Op: "ReloadSecurity", Code: ErrSecureCert, Err: err}
	}
	s.security.configs.Store(configs)
	configs.warnOfDates(s.cfg.Logger)
	return nil
}

func withOp(op string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Op = op
	}
	return err
}

// secure is what a connection has more with TLS.
type secure struct {
	// Immutable.
	started time.Time // accepted, or dialled

	// Immutable after OnOpen; nil where the link does TLS itself.
	session *tlsadapter.Session
	link    link.Sealing // conn.link

	// Atomic: written by the loop, or after the end of the link by who calls conn.close.
	ready atomic.Bool // established, as far as TLS goes

	// Atomic: the link ended before the handshake was done. What came with it is being delivered, until somebody closes.
	late   atomic.Bool
	reason atomic.Pointer[error] // of who closed

	// Guarded by conn.mu.
	began time.Time     // of the handshake; zero: before it
	limit time.Duration // for it

	// Guarded by security.mu.
	steps int   // submitted and not done
	cause error // of a link that ended with steps to be done
}

// maxHandshakeBuffered is how much of a handshake may wait for a worker before reading is paused. Twice the largest record: so
// much always has a whole one in it, for which a step is due.
const maxHandshakeBuffered = 36 << 10

// beginHandshake starts TLS, on the loop.
func (c *conn) beginHandshake() {
	s, security := c.secure, c.core.security
	configs := security.configs.Load()
	own, linkDoesTLS := c.link.(link.TLS)
	if linkDoesTLS {
		cfg := configs.client
		if c.inbound {
			cfg = configs.server
		}
		own.StartTLS(cfg, !c.inbound, c.takeUnread())
	} else {
		if c.inbound {
			s.session = tlsadapter.NewServer(configs.server)
		} else {
			s.session = tlsadapter.NewClient(configs.client)
		}
		s.session.SetAddrs(net.TCPAddrFromAddrPort(c.LocalAddr()), net.TCPAddrFromAddrPort(c.RemoteAddr()))
		s.link = c.link.(link.Sealing)
		s.link.Sealed()
	}
	c.link.SetDeadline(c.setHandshakeLimit())
	c.core.isPending(c)
	if c.core.closing.Load() {
		c.Close(ErrShutdown)
		return
	}
	if !linkDoesTLS && s.session.Feed(c.takeUnread()) {
		security.submit(c)
	}
}

// setHandshakeLimit sets the time limit of the handshake, which begins: Config.LoginTimeout counts, from the accept, too.
func (c *conn) setHandshakeLimit() time.Duration {
	limit := c.core.cfg.HandshakeTimeout
	if login := c.core.cfg.LoginTimeout; c.inbound && login > 0 {
		limit = min(limit, max(login-time.Since(c.acceptedAt()), 1))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secure.began, c.secure.limit = time.Now(), limit
	return limit
}

func (c *conn) handshakeBegan() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.secure.began.IsZero()
}

// handshakeTimedOut is the reason of a handshake that took too long, nil of one that did not.
func (c *conn) handshakeTimedOut() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s := c.secure; {
	case s.began.IsZero() || time.Since(s.began) < s.limit:
		return nil
	case s.limit < c.core.cfg.HandshakeTimeout:
		return ErrLoginTimeout
	}
	return ErrHandshakeTimeout
}

// step does what can be done of the handshake. A worker.
func (c *conn) step() {
	defer c.stepDone()
	defer func() {
		if v := recover(); v != nil { // in a callback of the tls.Config
			c.abortSession()
			c.panicked(v, nil)
		}
	}()
	if c.advance() {
		c.secure.link.Wake()
	}
	c.link.Resume(pauseHandshake)
}

// stepOnLoop does a step that is light, on the loop: a worker, and the wake-up behind it, would cost more.
func (c *conn) stepOnLoop() {
	if c.advance() {
		c.endHandshake()
	}
}

// advance does a step and sends what came of it. It reports that the handshake is done.
func (c *conn) advance() (done bool) {
	s := c.secure
	done, err := s.session.Step()
	if s.session.OutputLen() > 0 {
		_ = s.link.FlushSealer() // also an alert, where the handshake failed
	}
	if err != nil && !errors.Is(err, tlsadapter.ErrAborted) {
		c.link.Close(&given{err})
	}
	return done
}

// endHandshake establishes the connection, on the loop, once the handshake is done.
func (c *conn) endHandshake() {
	s := c.secure
	if s.ready.Load() || c.link.State() != link.Open {
		return
	}
	if s.session != nil && s.session.State() == tlsadapter.StateHandshaking {
		return
	}
	c.core.notPending(c)
	c.link.SetDeadline(0)
	s.ready.Store(true)
	if s.session == nil && c.limiter != nil {
		c.limiter.received = c.link.Received() // what the handshake took came in its own time
	}
	c.link.Resume(pauseHandshake) // paused between the worker's last step and now
	c.establish()
	if s.session != nil {
		c.decrypt(nil) // what came behind the handshake
	}
}

// endsInHandshake is told that the link ended. A client may be done with its side of the handshake, have sent packets and FIN before a
// worker here has done ours: then the connection is established late, and what came is delivered. It reports that the end
// comes with the step that is under way.
func (c *conn) endsInHandshake(cause error) bool {
	s := c.secure
	var call *os.SyscallError
	if s.session == nil || s.ready.Load() || cause != io.EOF && !errors.As(cause, &call) {
		return false
	}
	if !s.session.Begun() { // the peer has had nothing of ours: it cannot be done with its side
		return false
	}
	if c.core.security.deferEnd(c, cause) {
		return true
	}
	c.establishLate()
	return false
}

// stepDone has a link that ended during the step end, on the loop. A worker, or who closes the driver.
func (c *conn) stepDone() {
	if c.core.security.stepEnds(c) {
		c.secure.link.Execute(func() { c.core.security.end(c) })
	}
}

// establishLate establishes a connection whose link is gone, if the handshake is done, and delivers what came with it.
func (c *conn) establishLate() {
	s := c.secure
	switch s.session.State() {
	case tlsadapter.StateEstablished, tlsadapter.StateClosing:
	default:
		return
	}
	c.core.notPending(c)
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v, nil)
		}
	}()
	s.late.Store(true)
	defer s.late.Store(false)
	s.ready.Store(true)
	c.establish()
	if c.registered {
		_ = s.session.Open(nil, c.receive) // its end is the link's
	}
}

// endLate ends the delivery of what a link that is gone had brought, as closing an open link does.
func (c *conn) endLate(reason error) {
	if s := c.secure; s != nil && s.late.CompareAndSwap(true, false) {
		s.reason.Store(&reason)
	}
}

// decrypt takes what was read, on the loop.
func (c *conn) decrypt(b []byte) {
	s := c.secure
	if !s.ready.Load() {
		switch {
		case !s.session.Feed(b):
		case s.session.Light():
			c.stepOnLoop()
			return
		default:
			c.core.security.submit(c)
		}
		if s.session.Buffered() > maxHandshakeBuffered {
			c.link.Pause(pauseHandshake)
			if s.session.Buffered() <= maxHandshakeBuffered {
				// The worker took it meanwhile, and resumed before the pause.
				c.link.Resume(pauseHandshake)
			}
		}
		return
	}
	err := s.session.Open(b, c.receive)
	full := s.session.OutputLen() > 0 && errors.Is(s.link.FlushSealer(), link.ErrFull)
	switch {
	case err == nil && full:
		c.abort(ErrSlowConsumer)
	case err == nil:
	case err == io.EOF: // close_notify
		c.Close(ErrPeerClosed)
	default:
		c.Close(&Error{Op: "connection", Code: ErrReceive, Address: c.RemoteAddr(), Err: err})
	}
}

// Seal implements link.Sealer.
func (c *conn) Seal(dst, plain []byte) ([]byte, error) {
	session := c.secure.session
	for len(plain) > 0 {
		n := min(len(plain), tlsadapter.SealChunk)
		if err := session.Seal(plain[:n]); err != nil {
			return session.TakeOutput(dst), err
		}
		dst = session.TakeOutput(dst)
		plain = plain[n:]
	}
	return session.TakeOutput(dst), nil
}

// SealEnd implements link.Sealer: close_notify, where there is a session to close.
func (c *conn) SealEnd(dst []byte) ([]byte, error) {
	err := c.secure.session.CloseNotify()
	return c.secure.session.TakeOutput(dst), err
}

// endSession ends the session of a connection that ended, and completes its reason: the end of the stream without
// close_notify may be an attacker's.
func (c *conn) endSession(reason error) error {
	if c.secure.session == nil {
		return reason
	}
	if reason == ErrPeerClosed {
		if err := c.secure.session.CloseRead(); err != nil {
			reason = &Error{Op: "connection", Code: ErrReceive, Address: c.RemoteAddr(), Err: err}
		}
	}
	c.abortSession()
	return reason
}

// abortSession drops the session. A ClientSessionCache of the application's has Put called where a handshake is given up, and may panic.
func (c *conn) abortSession() {
	defer func() {
		if v := recover(); v != nil {
			c.core.logPanic(c.RemoteAddr(), v, nil)
		}
	}()
	c.secure.session.Abort()
}
