package load

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"time"
)

// conn is a client's connection. Owned by the loop.
type conn struct {
	number    uint32
	sent, got uint32 // packets
	ready     bool   // the first packet was exchanged
	began     time.Duration
	next      []uint32 // Sink: the place in the order that is due, for each sender

	fd   int       // -1: closed, or not opened yet; without epoll else 0
	nc   net.Conn  // without, and during a TLS handshake
	tls  *tls.Conn // nil: plain
	over *overFD   // with epoll: what tls is over
	in   []byte    // the beginning of a frame
	out  []byte    // with epoll: what the socket did not take yet

	connecting bool // with epoll: until the socket can be written
}

func newConn(number uint32) *conn { return &conn{number: number, fd: -1} }

// handler is what a loop tells. The calls come one at a time.
type handler interface {
	opened(*conn)
	// packet is valid until it returns. An error closes the connection.
	packet(c *conn, packet []byte) error
	// packetsDone follows the packets that were read together.
	packetsDone(*conn)
	// closed: err is nil where the client closed it.
	closed(c *conn, err error)
	// tick returns in how long to call it again; negative: no need.
	tick() time.Duration
}

// feed tells h of the packets in data, and keeps the beginning of the next one.
func (c *conn) feed(h handler, data []byte) error {
	if len(c.in) > 0 {
		c.in = append(c.in, data...)
		data = c.in
	}
	for len(data) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(data))
		if len(data) < end {
			break
		}
		if err := h.packet(c, data[2:end]); err != nil {
			return err
		}
		if c.fd < 0 {
			return nil
		}
		data = data[end:]
	}
	c.in = append(c.in[:0], data...)
	if len(c.in) == 0 {
		c.in = nil
	}
	h.packetsDone(c)
	return nil
}
