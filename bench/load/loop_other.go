//go:build !linux

package load

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// loop serves connections with a goroutine each, one at a time.
type loop struct {
	// Immutable.
	h    handler
	addr string

	// Guards what the loop owns.
	mu sync.Mutex
}

func newLoop(h handler, r Role) (*loop, error) {
	l := &loop{h: h, addr: r.Addr}
	go l.tick() // until the process ends
	return l, nil
}

func (l *loop) tick() {
	for {
		l.mu.Lock()
		d := l.h.tick()
		l.mu.Unlock()
		if d < 0 {
			d = 10 * time.Millisecond
		}
		time.Sleep(d)
	}
}

func (l *loop) post(f func()) { go l.call(f) }

func (l *loop) call(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *loop) dialOnLoop(c *conn) {
	go func() {
		nc, err := dialTCP(l.addr, 0, 0)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil {
			l.h.closed(c, err)
			return
		}
		c.nc = nc
		l.adoptOnLoop(c)
	}()
}

func (l *loop) adoptOnLoop(c *conn) {
	c.fd = 0
	go l.read(c)
	l.h.opened(c)
}

func (c *conn) clientTLS(nc net.Conn, cfg *tls.Config) {
	c.tls = tls.Client(nc, cfg)
	c.nc = c.tls
}

func (l *loop) read(c *conn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := c.nc.Read(buf)
		l.mu.Lock()
		if c.fd >= 0 && n > 0 {
			if feedErr := c.feed(l.h, buf[:n]); feedErr != nil {
				err = feedErr
			}
		}
		if err != nil {
			l.endOnLoop(c, err)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (l *loop) sendOnLoop(c *conn, b []byte, record int) {
	if record == 0 {
		record = len(b)
	}
	for len(b) > 0 && c.fd >= 0 {
		n := min(record, len(b))
		if _, err := c.nc.Write(b[:n]); err != nil {
			l.endOnLoop(c, err)
		}
		b = b[n:]
	}
}

func (l *loop) closeOnLoop(c *conn) { l.endOnLoop(c, nil) }

func (l *loop) endOnLoop(c *conn, err error) {
	if c.fd < 0 {
		return
	}
	c.fd = -1
	c.nc.Close()
	l.h.closed(c, err)
}

func dialTCP(addr string, _, _ int) (net.Conn, error) { return net.Dial("tcp4", addr) }

type overFD struct{}
