package tlsadapter

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Session is one TLS session, client or server, over buffers. See the package documentation for who calls what.
//
// A session that is not wanted any more must be told so with Abort while its handshake is incomplete; after that it
// can simply be forgotten.
type Session struct {
	// Immutable.
	tls *tls.Conn

	// Atomic.
	done atomic.Bool // the handshake is

	// Owned by whoever reads: the handshake's coroutine, then the caller of Open.
	at      cursor
	useless int32  // cost of the records without plaintext, less the plaintext; see maxUseless
	src     []byte // Open's input that crypto/tls has not asked for yet

	// Guarded by mu, a leaf: nothing is called and nothing computed with it held.
	mu    sync.Mutex
	state State
	hs    *handshake // nil once it is over
	in    *buffer    // input from Feed; nil: none
	out   *buffer    // output; nil: none
	err   error      // why StateFailed
	nc    net.Conn   // since Detach
	peer  net.Addr   // a client's, after the handshake: crypto/tls files tickets that come then under it
}

// NewServer returns the server's side of a session. cfg must not be nil and must not be changed any more; all sessions
// can share it, and should: a clone for each would be kept by each. Nothing runs yet.
func NewServer(cfg *tls.Config) *Session {
	s := &Session{hs: &handshake{asks: cfg.ClientAuth != tls.NoClientCert || cfg.GetConfigForClient != nil}}
	s.tls = tls.Server(memConn{s}, cfg)
	return s
}

// NewClient returns the client's side of a session, cfg as for NewServer. Nothing runs yet; Feed(nil) asks for the Step
// that produces the ClientHello. If cfg allows renegotiation that Step fails with ErrRenegotiation.
func NewClient(cfg *tls.Config) *Session {
	s := &Session{hs: &handshake{client: true}}
	if cfg.Renegotiation != tls.RenegotiateNever {
		s.hs.refuse = ErrRenegotiation
	}
	s.tls = tls.Client(memConn{s}, cfg)
	return s
}

// State returns the current state. Any goroutine.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// ConnectionState returns what was negotiated; the zero value during the handshake and after Abort of one
// that had not come to its end. Any goroutine.
func (s *Session) ConnectionState() tls.ConnectionState {
	switch s.State() {
	case StateHandshaking: // crypto/tls holds its lock for as long as the handshake takes
		return tls.ConnectionState{}
	case StateAborted:
		if !s.done.Load() {
			return tls.ConnectionState{}
		}
	}
	return s.tls.ConnectionState()
}

// Open decrypts ciphertext from the peer, after what Feed left, and passes the plaintext to deliver piece by piece, in
// order. It takes everything: crypto/tls keeps an incomplete record. ciphertext is borrowed until Open returns, plain
// until deliver returns; an empty ciphertext is fine. Look at the output afterwards: crypto/tls answers key updates
// and sends alerts from here.
//
// deliver may call Seal, CloseNotify, Abort and Detach (the latter two end Open with their errors), not Open.
//
// io.EOF is the peer's close_notify; what follows it is ignored. Any other error ends the session: a *PeerError, a
// wrapped error of crypto/tls, or the reason why the session could not be read. Both are sticky. What was decrypted
// before them has been delivered.
//
// Owned by the reader: one goroutine at a time, together with CloseRead and Detach. It can run beside Seal. It does not
// block, but for deliver.
func (s *Session) Open(ciphertext []byte, deliver func(plain []byte)) error {
	in, err := s.beginOpen()
	if err != nil {
		return err
	}
	s.src = ciphertext
	if in != nil {
		in.append(ciphertext)
		s.src = in.unread()
	}
	plain := scratchPool.Get().(*scratch)
	defer func() { // also if deliver panics
		s.src = nil
		scratchPool.Put(plain)
		inputPool.put(in)
	}()
	for len(s.src) > 0 { // one record with plaintext each: Read empties crypto/tls, as plain has room for any
		n, err := s.tls.Read(plain[:])
		if n > 0 { // of the last record, which is none of the useless ones
			s.useless = max(0, s.useless-s.at.cost()-int32(n))
		}
		if s.useless > maxUseless && (err == nil || err == errNoInput) {
			return s.fail(ErrUseless)
		}
		if n > 0 {
			deliver(plain[:n])
			if err := s.readable(); err != nil {
				return err
			}
		}
		if err != nil && err != errNoInput {
			return s.endOpen(err)
		}
	}
	return nil
}

// beginOpen hands the input that Feed left to Open.
func (s *Session) beginOpen() (in *buffer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readableLocked(); err != nil {
		return nil, err
	}
	in, s.in = s.in, nil
	return in, nil
}

// endOpen settles what it means that crypto/tls cannot read on.
func (s *Session) endOpen(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == io.EOF {
		if !s.moveLocked(StatePeerClosed) {
			s.moveLocked(StateClosed)
		}
		return s.readableLocked()
	}
	s.failLocked(Describe("read", err))
	return s.errLocked()
}

// CloseRead says that the stream from the peer has ended. It returns nil if close_notify came first and ErrTruncated if
// not, which ends the session; during the handshake ErrTruncated as well, and the session must be aborted; otherwise
// the reason why the session had ended. Owned by the reader; after all input went through Open.
func (s *Session) CloseRead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case StateHandshaking:
		return ErrTruncated
	case StateEstablished, StateClosing:
		s.failLocked(ErrTruncated)
	case StatePeerClosed, StateClosed:
		return nil
	}
	return s.errLocked()
}

// Seal encrypts plain into the output, in as few records as recordLimit allows; plain can be reused when it returns.
// Everything or, with an error, nothing that the peer could use. The error is ErrNotEstablished, ErrWriteClosed, or the
// reason why the session ended.
//
// One goroutine at a time, together with CloseNotify; it can run beside Open. It does not block: only crypto/tls' own
// lock, which Open holds for the moment of answering a key update or sending an alert.
func (s *Session) Seal(plain []byte) error {
	if err := s.writable(); err != nil {
		return err
	}
	for len(plain) > 0 {
		n := min(len(plain), recordLimit)
		if _, err := s.tls.Write(plain[:n]); err != nil {
			return s.fail(Describe("write", err))
		}
		plain = plain[n:]
	}
	return nil
}

// CloseNotify puts the close_notify alert into the output (RFC 8446, section 6.1): the peer learns that nothing follows,
// and Seal refuses from now on. Reading goes on. Idempotent; goroutine and errors as Seal.
func (s *Session) CloseNotify() error {
	if err := s.writable(); errors.Is(err, ErrWriteClosed) {
		return nil
	} else if err != nil {
		return err
	}
	if err := s.tls.CloseWrite(); err != nil {
		return s.fail(Describe("close", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.moveLocked(StateClosing) {
		s.moveLocked(StateClosed)
	}
	return nil
}

// OutputLen returns how many bytes wait for TakeOutput. Any goroutine.
func (s *Session) OutputLen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.len()
}

// TakeOutput appends all ciphertext for the peer to dst and returns it. The bytes must be sent in the order in which
// they are taken: one goroutine at a time, which may be any.
func (s *Session) TakeOutput(dst []byte) []byte {
	s.mu.Lock()
	out := s.out
	s.out = nil
	s.mu.Unlock()
	if out != nil {
		dst = append(dst, out.unread()...)
		outputPool.put(out)
	}
	return dst
}

// Abort drops the session: its buffers go back and an incomplete handshake is stopped. It never waits: if a Step is under
// way on another goroutine, that Step stops the handshake when its computation is done, and returns ErrAborted. Without
// effect after Detach. Idempotent; any goroutine, also one that is locked to its thread.
func (s *Session) Abort() {
	s.mu.Lock()
	h := s.hs
	if !s.moveLocked(StateAborted) {
		s.mu.Unlock()
		return
	}
	s.hs, s.err = nil, nil
	s.dropInputLocked()
	outputPool.put(s.out)
	s.out = nil
	suspended := h != nil && !h.stepping && h.stop != nil
	s.mu.Unlock()
	if suspended {
		h.unwind()
	}
}

// Detach ends the session as a state machine and returns it as an ordinary blocking *tls.Conn on nc: it first reads what
// the session had been given and not decrypted, then nc. Output that was not taken is written to nc first, which blocks
// as nc does; on a loop take it before. Plaintext that Open has delivered is the caller's.
//
// From the reader's goroutine, also within deliver, and with no Seal under way. With an error nothing was detached
// (ErrNotEstablished, or why the session ended), or nc failed to take the output.
func (s *Session) Detach(nc net.Conn) (*tls.Conn, error) {
	s.mu.Lock()
	if !s.moveLocked(StateDetached) {
		defer s.mu.Unlock()
		return nil, s.errLocked()
	}
	s.keepLocked(s.src)
	s.src = nil
	s.nc = nc
	out := s.out
	s.out = nil
	s.mu.Unlock()
	if out == nil {
		return s.tls, nil
	}
	defer outputPool.put(out)
	if _, err := nc.Write(out.unread()); err != nil {
		return nil, err
	}
	return s.tls, nil
}

// A peer may send much that is no plaintext: key updates, each of which derives keys, and the beginning of a message that crypto/tls keeps
// up to 256 KiB of. It is ended when the records without plaintext cost maxUseless more than there was plaintext. Each costs
// what it is long, for the memory, and uselessCost at least, for the computing: a key update takes as long as to decrypt some KiB. What
// else is in a record with plaintext, e.g. padding (RFC 8446, section 5.4), costs nothing.
const (
	maxUseless  = 48 << 10
	uselessCost = 1 << 10
)

// SealChunk is how much plaintext Seal is best given at once, with a TakeOutput behind it: whole records, in a buffer that is used again.
const SealChunk = 5 * recordLimit

// recordLimit is the most plaintext that Seal puts into one record. A peer on crypto/tls keeps, for the life of the session,
// an input buffer for the largest record it ever got: with 16 KiB records every idle connection to a peer like us would
// hold up to 16 KiB more. This one leaves it at 3.5 KiB (the record, its framing, and bytes.MinRead of slack).
const recordLimit = 3000

func (s *Session) readable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readableLocked()
}

// readableLocked returns why there is nothing to read any more, nil if there may be.
func (s *Session) readableLocked() error {
	switch s.state {
	case StateEstablished, StateClosing:
		return nil
	case StatePeerClosed, StateClosed:
		return io.EOF
	}
	return s.errLocked()
}

func (s *Session) writable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case StateEstablished, StatePeerClosed:
		return nil
	case StateClosing, StateClosed:
		return ErrWriteClosed
	}
	return s.errLocked()
}

// errLocked returns why nothing can be done in a state that is none of the working ones.
func (s *Session) errLocked() error {
	switch s.state {
	case StateHandshaking:
		return ErrNotEstablished
	case StateAborted:
		return ErrAborted
	case StateDetached:
		return ErrDetached
	case StateClosed:
		return ErrWriteClosed
	default:
		return s.err
	}
}

// fail ends the session with err, unless it has ended already, and returns the reason.
func (s *Session) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
	return s.errLocked()
}

func (s *Session) failLocked(err error) {
	if s.moveLocked(StateFailed) {
		s.err = err
		s.dropInputLocked()
	}
}

// keepLocked appends to the input that waits.
func (s *Session) keepLocked(p []byte) {
	if len(p) == 0 {
		return
	}
	if s.in == nil {
		s.in = inputPool.get()
	}
	s.in.append(p)
}

// unreadLocked moves waiting input to p as it comes.
func (s *Session) unreadLocked(p []byte) (n int) {
	if s.in == nil {
		return 0
	}
	n = copy(p, s.in.unread())
	s.in.consume(n)
	if s.in.empty() {
		s.dropInputLocked()
	}
	return n
}

func (s *Session) dropInputLocked() {
	inputPool.put(s.in)
	s.in = nil
}
