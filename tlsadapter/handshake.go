package tlsadapter

import (
	"bytes"
	"iter"
	"net"
	"runtime"
)

// handshake is what a Session needs only until it is established.
//
// tls.Conn.Handshake cannot return in the middle: it runs as a coroutine (iter.Pull), which the Read of memConn
// suspends when the next record is not there yet and Step resumes on whatever goroutine it is called. Between two
// steps the coroutine costs its stack and no scheduler: nothing waits for the peer.
type handshake struct {
	// Immutable.
	client bool
	asks   bool  // may ask for a client certificate: what a client answers can have a signature to verify
	refuse error // the configuration cannot work

	// Owned by the coroutine.
	yield func(struct{}) bool
	err   error // the result; to be read once resume returned false

	// Guarded by Session.mu. Called without it: by the Step that is under way, or for Abort (unwind) if none is.
	resume func() (struct{}, bool) // nil: not started; false: the handshake has returned
	stop   func()                  // makes a suspended handshake return at once

	// Guarded by Session.mu.
	local, remote net.Addr
	owed          bool // Feed asked for a Step that has not returned
	stepping      bool // a Step is under way
	protected     bool // the peer may have started encrypting: records must be left as they are
	piece         int  // see splitRecord; 0: not within a split record
}

// Feed adds ciphertext from the peer, which is copied. It reports whether the caller must arrange one call of Step:
//
//	if s.Feed(data) { workers <- s }
//
// It is true at most once until that Step returns, so that one session never occupies two workers, and only if there
// is something to do: a complete record (a peer that sends a byte a second costs no steps), or the start of a client's
// handshake, for which Feed(nil) is enough. Bytes that arrive while a Step is under way are taken up by that Step, or
// make Feed return true: none is forgotten.
//
// Once the session is established Feed never asks for a Step, and the bytes wait for Open; after the end of a session
// they are dropped. Feed does not limit what is kept: a driver stops reading from a peer whose Buffered is beyond
// what it grants. Any goroutine; never blocks for long: a Step under way computes without the lock.
func (s *Session) Feed(ciphertext []byte) (step bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case StateHandshaking, StateEstablished, StateClosing:
		s.keepLocked(ciphertext)
	default:
		return false
	}
	if h := s.hs; h != nil && !h.owed && s.readyLocked() {
		h.owed = true
		return true
	}
	return false
}

// Begun reports that a Step has begun: before that the peer has had nothing from us. Any goroutine.
func (s *Session) Begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hs == nil || s.hs.resume != nil
}

// Buffered returns how many bytes wait for Step or Open. After a Step that was not done that is at most one incomplete
// record (18,436 bytes) plus what was fed since. Any goroutine.
func (s *Session) Buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.len()
}

// Light reports that the Step which Feed has asked for is as quick as an Open: it can run on the event loop. So it is once a
// server that asks for no client certificate has answered the ClientHello of a TLS 1.3 client: what is left is to
// compare the client's Finished, without a public-key operation or a callback of the tls.Config. To be asked when Feed returned true,
// before anything else is fed.
func (s *Session) Light() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hs
	if h == nil || h.client || h.asks || h.resume == nil || h.stepping || s.in == nil || s.at.midRecord() {
		return false
	}
	// Only TLS 1.3 protects handshake messages as application data: TLS 1.2's, and a second ClientHello, have their own type.
	src := s.in.unread()
	for wholeRecord(src) && src[0] == typeChangeCipherSpec {
		src = src[min(recordHeaderLen+bodyLen(src), len(src)):]
	}
	return !wholeRecord(src) || src[0] == typeApplicationData
}

// SetAddrs sets the addresses that callbacks of the tls.Config see on tls.ClientHelloInfo.Conn during the handshake, and
// under which a client without a ServerName keeps its sessions for resumption. Call it before the first Step; without it they
// are a placeholder.
func (s *Session) SetAddrs(local, remote net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hs != nil {
		s.hs.local, s.hs.remote = local, remote
	}
}

// Step does what can be done of the handshake with the input that is there: it computes, for milliseconds where the
// certificate is RSA, and calls the callbacks of the tls.Config, so it does not belong on an event loop. Take the
// output afterwards, whatever it returned: also a failed handshake has an alert for the peer.
//
// done reports that the session is established; the caller's next Open, also Open(nil, …), delivers what came after the
// handshake. With (false, nil) the handshake waits for input and Feed will ask for the next Step. An error is final and
// sticky: a *PeerError, ErrAborted, or a wrapped error of crypto/tls.
//
// Call it when Feed returned true, on any goroutine that is not locked to its thread. A call without need is harmless;
// one during another Step returns (false, nil) at once. A panic in a callback passes through Step; the session can
// only be aborted then.
func (s *Session) Step() (done bool, err error) {
	s.mu.Lock()
	h := s.hs
	if s.state != StateHandshaking || h.stepping {
		defer s.mu.Unlock()
		return s.outcomeLocked()
	}
	h.owed, h.stepping = true, true
	if h.resume == nil {
		h.resume, h.stop = iter.Pull(s.coroutine(h)) // runs nothing yet
	}
	s.mu.Unlock()

	for {
		_, suspended := h.resume()
		s.mu.Lock()
		switch {
		case s.state == StateAborted: // meanwhile, and left the coroutine to us
			s.mu.Unlock()
			h.stop()
			return false, ErrAborted
		case !suspended:
			defer s.mu.Unlock()
			s.finishLocked(h.err)
			return s.outcomeLocked()
		case !s.readyLocked():
			h.owed, h.stepping = false, false
			s.mu.Unlock()
			return false, nil
		}
		s.mu.Unlock()
	}
}

// coroutine is what runs in steps. It yields nothing but control.
func (s *Session) coroutine(h *handshake) iter.Seq[struct{}] {
	return func(yield func(struct{}) bool) {
		h.yield = yield
		growStack()
		if h.err = h.refuse; h.err == nil {
			h.err = s.tls.Handshake()
		}
	}
}

// unwind has a suspended handshake return, which computes nothing: it was waiting for input. It does so on a goroutine of its own, as the
// runtime throws where a coroutine is resumed on a goroutine that is locked to its thread and was begun on one that is not, and
// passes a panic (of ClientSessionCache.Put) on.
func (h *handshake) unwind() {
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		h.stop()
	}()
	if v := <-done; v != nil {
		panic(v)
	}
}

// growStack has the coroutine's stack grow to the 16 KiB that a handshake needs, at once, while there is nothing on it to move. Bit by
// bit, out of the computation, it took 4 % of a handshake's processor time.
//
//go:noinline
func growStack() {
	var frame [8 << 10]byte
	runtime.KeepAlive(&frame)
}

// finishLocked ends the handshake: everything that was only for it is let go.
func (s *Session) finishLocked(err error) {
	if s.hs.client {
		s.peer = s.hs.remote
	}
	s.hs = nil
	if err != nil {
		s.failLocked(Describe("handshake", err))
		return
	}
	s.moveLocked(StateEstablished)
	s.done.Store(true)
	if s.in != nil && s.in.empty() {
		s.dropInputLocked()
	}
}

// outcomeLocked is what Step returns for the state the session is in.
func (s *Session) outcomeLocked() (done bool, err error) {
	switch s.state {
	case StateHandshaking:
		return false, nil
	case StateFailed, StateAborted, StateDetached:
		return false, s.errLocked()
	default:
		return true, nil
	}
}

// readyLocked reports whether a Step would get on.
func (s *Session) readyLocked() bool {
	if s.hs.client && s.hs.resume == nil {
		return true
	}
	if s.in == nil {
		return false
	}
	if s.at.midRecord() {
		return !s.in.empty()
	}
	return wholeRecord(s.in.unread())
}

// nextRecordLocked moves the next complete record to p, or as much of it as crypto/tls should get first; 0: it is
// not there yet. Unprotected handshake records are split so that they fit into what crypto/tls has: its input buffer
// then stays at some 600 bytes where a ClientHello with a post-quantum key share would leave 2 KiB for the session's life.
func (s *Session) nextRecordLocked(p []byte) (n int) {
	if !s.readyLocked() || s.in == nil {
		return 0
	}
	src := s.in.unread()
	if !s.at.midRecord() {
		if piece := s.hs.pieceOf(src, len(p)); piece > 0 {
			n, off := splitRecord(p, src, piece)
			s.in.consume(off)
			return n
		}
	}
	n = s.at.take(p, src)
	s.in.consume(n)
	if s.in.empty() {
		s.dropInputLocked()
	}
	return n
}

// pieceOf returns how much of the body of the record at the head of src goes into a record of its own; 0: hand it
// out as it is. room is what crypto/tls offers, which is never less than bytes.MinRead.
func (h *handshake) pieceOf(src []byte, room int) int {
	if src[0] != typeHandshake {
		h.protected = true
	}
	n := bodyLen(src)
	if h.protected || !plausible(src) || n > maxPlaintext || room < bytes.MinRead {
		return 0
	}
	if h.piece == 0 {
		h.piece = pieceLen(n, room)
	}
	if n <= h.piece || h.piece+recordHeaderLen > room {
		h.piece = 0 // the last one
		return 0
	}
	return h.piece
}
