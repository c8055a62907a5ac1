package tlsadapter

import (
	"net"
	"time"
)

// memConn is the net.Conn that a session's tls.Conn sits on: the session's buffers seen from below. A pointer in an
// interface, so that it costs nothing.
//
//	             Read, no input                    Write
//	handshake    suspends the handshake's          appends to the output
//	             coroutine until Step resumes it
//	then         errNoInput                        appends to the output
//	aborted      ErrAborted                        discards
//	detached     the real connection's             the real connection's
//
// Deadlines do nothing before Detach: crypto/tls sets one in the past around close_notify, which must still go out.
type memConn struct{ s *Session }

var _ net.Conn = memConn{}

// errNoInput tells crypto/tls that the rest of the record comes later: as the error is temporary it keeps what it has,
// and the next Read goes on from there.
var errNoInput net.Error = noInput{}

type noInput struct{}

func (noInput) Error() string   { return "tlsadapter: no input" }
func (noInput) Timeout() bool   { return false }
func (noInput) Temporary() bool { return true }

// Read is called by crypto/tls: on the handshake's coroutine, within Open, and after Detach by anybody.
func (c memConn) Read(p []byte) (int, error) {
	s := c.s
	for {
		s.mu.Lock()
		switch s.state {
		case StateHandshaking:
			h, n := s.hs, s.nextRecordLocked(p)
			s.mu.Unlock()
			if n > 0 {
				return n, nil
			}
			if !h.yield(struct{}{}) {
				return 0, ErrAborted
			}
		case StateAborted:
			s.mu.Unlock()
			return 0, ErrAborted
		case StateDetached:
			n := s.unreadLocked(p)
			nc := s.nc
			s.mu.Unlock()
			if n > 0 || len(p) == 0 {
				return n, nil
			}
			return nc.Read(p)
		default:
			s.mu.Unlock()
			n := s.at.take(p, s.src)
			s.src = s.src[n:]
			if n == 0 {
				return 0, errNoInput
			}
			if !s.at.midRecord() {
				s.useless += s.at.cost() // until Open sees that it is not
			}
			return n, nil
		}
	}
}

// Write takes everything: a failed write would be final for crypto/tls.
func (c memConn) Write(p []byte) (int, error) {
	s := c.s
	s.mu.Lock()
	nc := s.nc
	if nc == nil && s.state != StateAborted {
		if s.out == nil {
			s.out = outputPool.get()
		}
		s.out.append(p)
	}
	s.mu.Unlock()
	if nc != nil {
		return nc.Write(p)
	}
	return len(p), nil
}

// Close is called by crypto/tls after Detach, and by callbacks that got the connection from a tls.ClientHelloInfo.
func (c memConn) Close() error {
	if nc := c.detached(); nc != nil {
		return nc.Close()
	}
	return nil
}

func (c memConn) LocalAddr() net.Addr  { local, _ := c.addrs(); return local }
func (c memConn) RemoteAddr() net.Addr { _, remote := c.addrs(); return remote }

func (c memConn) SetDeadline(t time.Time) error {
	if nc := c.detached(); nc != nil {
		return nc.SetDeadline(t)
	}
	return nil
}

func (c memConn) SetReadDeadline(t time.Time) error {
	if nc := c.detached(); nc != nil {
		return nc.SetReadDeadline(t)
	}
	return nil
}

func (c memConn) SetWriteDeadline(t time.Time) error {
	if nc := c.detached(); nc != nil {
		return nc.SetWriteDeadline(t)
	}
	return nil
}

// detached returns the real connection, nil before Detach.
func (c memConn) detached() net.Conn {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.nc
}

func (c memConn) addrs() (local, remote net.Addr) {
	c.s.mu.Lock()
	nc, h := c.s.nc, c.s.hs
	remote = c.s.peer
	if nc == nil && h != nil {
		local, remote = h.local, h.remote
	}
	c.s.mu.Unlock()
	if nc != nil {
		return nc.LocalAddr(), nc.RemoteAddr()
	}
	if local == nil {
		local = memAddr{}
	}
	if remote == nil {
		remote = memAddr{}
	}
	return local, remote
}

// memAddr stands for an address that nobody told us.
type memAddr struct{}

func (memAddr) Network() string { return "tlsadapter" }
func (memAddr) String() string  { return "tlsadapter" }
