package tlsadapter_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// newPipe returns two ends of an in-memory connection that, unlike net.Pipe, buffers: a TLS server writes its
// session tickets whether or not the client reads. Closing either end ends both; what is buffered can still be read.
func newPipe(t testing.TB) (a, b net.Conn) {
	there, back := newStream(), newStream()
	a, b = pipeConn{in: back, out: there}, pipeConn{in: there, out: back}
	t.Cleanup(func() { a.Close() })
	return a, b
}

// newConnPair returns two tls.Conns on a pipe.
func newConnPair(t testing.TB, client, server *tls.Config) (c, s *tls.Conn) {
	a, b := newPipe(t)
	return tls.Client(a, client), tls.Server(b, server)
}

// stream is one direction of a pipe.
type stream struct {
	mu       sync.Mutex
	changed  sync.Cond
	buf      bytes.Buffer
	closed   bool
	deadline bool // reads fail at once
}

func newStream() *stream {
	s := new(stream)
	s.changed.L = &s.mu
	return s
}

func (s *stream) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.changed.Broadcast()
}

type pipeConn struct{ in, out *stream }

func (c pipeConn) Read(p []byte) (n int, err error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.buf.Len() == 0 && !s.closed && !s.deadline {
		s.changed.Wait()
	}
	switch {
	case s.deadline:
		return 0, os.ErrDeadlineExceeded
	case s.buf.Len() == 0:
		return 0, io.EOF
	}
	return s.buf.Read(p)
}

func (c pipeConn) Write(p []byte) (n int, err error) {
	c.out.update(func() {
		if c.out.closed {
			err = net.ErrClosed
			return
		}
		n, err = c.out.buf.Write(p)
	})
	return n, err
}

func (c pipeConn) Close() error {
	c.in.update(func() { c.in.closed = true })
	c.out.update(func() { c.out.closed = true })
	return nil
}

// CloseWrite is the end of the stream for the other end.
func (c pipeConn) CloseWrite() { c.out.update(func() { c.out.closed = true }) }

func (c pipeConn) LocalAddr() net.Addr  { return pipeAddr("local") }
func (c pipeConn) RemoteAddr() net.Addr { return pipeAddr("remote") }

// SetReadDeadline knows never and now.
func (c pipeConn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.deadline = !t.IsZero() && !t.After(time.Now()) })
	return nil
}
func (c pipeConn) SetWriteDeadline(time.Time) error { return nil }
func (c pipeConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
