package driver

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
)

// WithUnread is nc with the bytes that br has read from it and nobody has taken: they come first out of Read, and Driver.Adopt
// receives them first. So nothing is lost of a peer that sends on before it has its answer:
//
//	nc, rw, err := w.(http.Hijacker).Hijack()
//	// … the answer …
//	c, err := d.Adopt(driver.WithUnread(nc, rw.Reader))
//
// It reads nothing and does not block. Neither nc nor br may be used afterwards.
func WithUnread(nc net.Conn, br *bufio.Reader) net.Conn {
	b, _ := br.Peek(br.Buffered())
	return withUnread(nc, append([]byte(nil), b...))
}

// withUnread is nc with b before what else it has unread.
func withUnread(nc net.Conn, b []byte) net.Conn {
	if len(b) == 0 {
		return nc
	}
	switch nc := nc.(type) {
	case *net.TCPConn:
		return &unreadTCPConn{TCPConn: nc, unread: &unread{bytes: b}}
	case *unreadTCPConn:
		return withUnread(nc.TCPConn, append(b, nc.unread.take()...))
	case *tls.Conn:
		return &unreadTLSConn{Conn: nc, unread: &unread{bytes: b}}
	case *unreadTLSConn:
		return withUnread(nc.Conn, append(b, nc.unread.take()...))
	}
	return &unreadConn{Conn: nc, unread: &unread{bytes: b}}
}

// tcpConn is nc's TCP connection and what it has unread.
func tcpConn(nc net.Conn) (*net.TCPConn, []byte, error) {
	switch nc := nc.(type) {
	case *net.TCPConn:
		return nc, nil, nil
	case *unreadTCPConn:
		return nc.TCPConn, nc.unread.take(), nil
	}
	return nil, nil, fmt.Errorf("a %T is not a *net.TCPConn", nc)
}

// unread is what was read from a connection and not taken: it comes first.
type unread struct {
	// Guarded by mu.
	mu    sync.Mutex
	bytes []byte
}

// read is the Read of a connection with unread bytes.
func (u *unread) read(nc io.Reader, b []byte) (int, error) {
	u.mu.Lock()
	n := copy(b, u.bytes)
	u.bytes = u.bytes[n:]
	u.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	return nc.Read(b)
}

func (u *unread) take() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.bytes
	u.bytes = nil
	return b
}

// unreadTCPConn is a *net.TCPConn with unread bytes.
type unreadTCPConn struct {
	*net.TCPConn
	unread *unread
}

// Read implements net.Conn.
func (c *unreadTCPConn) Read(b []byte) (int, error) { return c.unread.read(c.TCPConn, b) }

// WriteTo implements io.WriterTo, for io.Copy, which else would use the embedded one's.
func (c *unreadTCPConn) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(c.unread.take())
	if err != nil {
		return int64(n), err
	}
	m, err := io.Copy(w, c.TCPConn)
	return int64(n) + m, err
}

// unreadTLSConn is a *tls.Conn with unread bytes, decrypted.
type unreadTLSConn struct {
	*tls.Conn
	unread *unread
}

// Read implements net.Conn.
func (c *unreadTLSConn) Read(b []byte) (int, error) { return c.unread.read(c.Conn, b) }

// unreadConn is any other with unread bytes.
type unreadConn struct {
	net.Conn
	unread *unread
}

// Read implements net.Conn.
func (c *unreadConn) Read(b []byte) (int, error) { return c.unread.read(c.Conn, b) }
