package load

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// overFD is what crypto/tls reads and writes: a net.Conn during the handshake, then a socket that is never waited for.
type overFD struct {
	net.Conn
	conn    *conn // nil: handshake
	drained bool  // the last read took all there was
	records []byte
}

// errWouldBlock is temporary, so that crypto/tls can be called again.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

func (o *overFD) Read(p []byte) (int, error) {
	if o.conn == nil {
		return o.Conn.Read(p)
	}
	if o.drained {
		return 0, errWouldBlock
	}
	n, err := syscall.Read(o.conn.fd, p)
	o.drained = n < len(p)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, errWouldBlock
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (o *overFD) Write(p []byte) (int, error) {
	if o.conn == nil {
		return o.Conn.Write(p)
	}
	o.records = append(o.records, p...)
	return len(p), nil
}

// adoptOnLoop takes over an established TLS connection. Its handshake was made on c.nc.
func (l *loop) adoptOnLoop(c *conn) {
	raw, err := c.nc.(*net.TCPConn).SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) { c.fd, err = syscall.Dup(int(fd)) })
		err = errors.Join(controlErr, err)
	}
	c.nc.Close()
	c.nc = nil
	if err == nil {
		l.keep(c)
		c.over.conn = c
		err = l.register(syscall.EPOLL_CTL_ADD, c.fd, syscall.EPOLLIN)
	}
	switch {
	case c.fd < 0:
		l.h.closed(c, err)
		return
	case err != nil:
		l.endOnLoop(c, err)
		return
	}
	l.h.opened(c)
	l.readTLS(c) // what the handshake left in crypto/tls
}

// clientTLS makes c a TLS connection over nc, of which the handshake is the caller's next call.
func (c *conn) clientTLS(nc net.Conn, cfg *tls.Config) {
	c.nc, c.over = nc, &overFD{Conn: nc}
	c.tls = tls.Client(c.over, cfg)
}

func (l *loop) readTLS(c *conn) {
	defer l.flushOnLoop(c) // e.g. the answer to a key update
	c.over.drained = false
	for c.fd >= 0 {
		n, err := c.tls.Read(l.readBuffer)
		if n > 0 {
			err = errors.Join(c.feed(l.h, l.readBuffer[:n]), ignoreWouldBlock(err))
		}
		switch {
		case errors.Is(err, errWouldBlock):
			return
		case err != nil:
			l.endOnLoop(c, err)
			return
		}
	}
}

func ignoreWouldBlock(err error) error {
	if errors.Is(err, errWouldBlock) {
		return nil
	}
	return err
}

// flushOnLoop writes the records that crypto/tls made.
func (l *loop) flushOnLoop(c *conn) {
	if records := c.over.records; len(records) > 0 && c.fd >= 0 {
		l.writeOnLoop(c, records)
		c.over.records = nil
		if cap(records) <= 4<<10 {
			c.over.records = records[:0]
		}
	}
}
