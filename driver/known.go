package driver

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
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
	return known(nc, append([]byte(nil), b...), netip.AddrPort{})
}

// WithRemoteAddr is nc as a connection from addr: the player whose address something in front has told, where the socket's is
// the load balancer's. Driver.Adopt takes the peer to be addr. What Hijack returns has it already; to another process it has to be told
// beside the descriptor. It is the connection's key, with its port: no two may have the same. nc may not be used afterwards. An addr that is
// not valid changes nothing.
func WithRemoteAddr(nc net.Conn, addr netip.AddrPort) net.Conn { return known(nc, nil, addr) }

// known is nc with b before what else it has unread, and as one from remote, if that is valid.
func known(nc net.Conn, b []byte, remote netip.AddrPort) net.Conn {
	if len(b) == 0 && !remote.IsValid() {
		return nc
	}
	remote = key(remote)
	more := &beyond{unread: b, remote: remote}
	switch nc := nc.(type) {
	case *net.TCPConn:
		return &knownTCPConn{TCPConn: nc, beyond: more}
	case *knownTCPConn:
		return &knownTCPConn{TCPConn: nc.TCPConn, beyond: more.over(nc.beyond)}
	case *tls.Conn:
		return &knownTLSConn{Conn: nc, beyond: more}
	case *knownTLSConn:
		return &knownTLSConn{Conn: nc.Conn, beyond: more.over(nc.beyond)}
	}
	return &knownConn{Conn: nc, beyond: more}
}

// tcpConn is nc's TCP connection and what is known beyond it.
func tcpConn(nc net.Conn) (*net.TCPConn, *beyond, error) {
	switch nc := nc.(type) {
	case *net.TCPConn:
		return nc, &beyond{}, nil
	case *knownTCPConn:
		return nc.TCPConn, nc.beyond, nil
	}
	return nil, nil, fmt.Errorf("a %T is not a *net.TCPConn", nc)
}

// beyond is what is known of a connection and its socket does not have.
type beyond struct {
	// Immutable.
	remote netip.AddrPort // the peer; invalid: the socket's

	// Guarded by mu.
	mu     sync.Mutex
	unread []byte // comes before what the socket has
}

// over is b with what only other has. other may not be used afterwards.
func (b *beyond) over(other *beyond) *beyond {
	remote := b.remote
	if !remote.IsValid() {
		remote = other.remote
	}
	return &beyond{remote: remote, unread: append(b.take(), other.take()...)}
}

// read is the Read of a connection with unread bytes.
func (b *beyond) read(nc io.Reader, p []byte) (int, error) {
	b.mu.Lock()
	n := copy(p, b.unread)
	b.unread = b.unread[n:]
	b.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	return nc.Read(p)
}

func (b *beyond) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	unread := b.unread
	b.unread = nil
	return unread
}

func (b *beyond) remoteAddr(nc net.Conn) net.Addr {
	if b.remote.IsValid() {
		return net.TCPAddrFromAddrPort(b.remote)
	}
	return nc.RemoteAddr()
}

// knownTCPConn is a *net.TCPConn of which more is known.
type knownTCPConn struct {
	*net.TCPConn
	beyond *beyond
}

// Read implements net.Conn.
func (c *knownTCPConn) Read(b []byte) (int, error) { return c.beyond.read(c.TCPConn, b) }

// RemoteAddr implements net.Conn.
func (c *knownTCPConn) RemoteAddr() net.Addr { return c.beyond.remoteAddr(c.TCPConn) }

// WriteTo implements io.WriterTo, for io.Copy, which else would use the embedded one's.
func (c *knownTCPConn) WriteTo(w io.Writer) (int64, error) {
	var n int
	if unread := c.beyond.take(); len(unread) > 0 {
		var err error
		if n, err = w.Write(unread); err != nil {
			return int64(n), err
		}
	}
	m, err := io.Copy(w, c.TCPConn)
	return int64(n) + m, err
}

// Again implements tcp.Again.
func (c *knownTCPConn) Again() func(*net.TCPConn) net.Conn {
	c.beyond.mu.Lock()
	defer c.beyond.mu.Unlock()
	unread, remote := c.beyond.unread, c.beyond.remote
	return func(nc *net.TCPConn) net.Conn { return known(nc, unread, remote) }
}

// knownTLSConn is a *tls.Conn of which more is known; unread bytes are decrypted.
type knownTLSConn struct {
	*tls.Conn
	beyond *beyond
}

// Read implements net.Conn.
func (c *knownTLSConn) Read(b []byte) (int, error) { return c.beyond.read(c.Conn, b) }

// RemoteAddr implements net.Conn.
func (c *knownTLSConn) RemoteAddr() net.Addr { return c.beyond.remoteAddr(c.Conn) }

// knownConn is any other of which more is known.
type knownConn struct {
	net.Conn
	beyond *beyond
}

// Read implements net.Conn.
func (c *knownConn) Read(b []byte) (int, error) { return c.beyond.read(c.Conn, b) }

// RemoteAddr implements net.Conn.
func (c *knownConn) RemoteAddr() net.Addr { return c.beyond.remoteAddr(c.Conn) }
