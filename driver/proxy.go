package driver

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// awaitedHeader is the PROXY protocol header that an accepted connection must begin with: a load balancer's way to tell whom it
// accepted it from. Owned by the loop.
type awaitedHeader struct {
	received []byte
}

// maxProxyHeader is the longest that is taken. Version 1 has 107 bytes at most, version 2 some 52 and what a load balancer adds.
const maxProxyHeader = 4 << 10

// isProxy reports whether connections from a begin with a header.
func (c *Config) isProxy(a netip.Addr) bool {
	a = a.WithZone("") // networks have none
	for _, p := range c.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// awaitHeader has the connection begin with the header. Before it is attached.
func (c *conn) awaitHeader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.moreLocked()
	m.header, m.accepted = new(awaitedHeader), time.Now()
}

func (c *conn) awaitedHeader() *awaitedHeader {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		return nil
	}
	return c.more.header
}

// acceptedAt is when a connection was accepted, where something comes before Established: a header, or TLS. Else it is zero.
func (c *conn) acceptedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.more != nil && !c.more.accepted.IsZero():
		return c.more.accepted
	case c.secure != nil:
		return c.secure.started
	}
	return time.Time{}
}

// receiveHeader takes what was read before the header was complete, on the loop, and goes on with the connection when it is.
func (c *conn) receiveHeader(h *awaitedHeader, b []byte) {
	if c.link.State() != link.Open { // e.g. a time limit has come
		return
	}
	h.received = append(h.received, b...)
	size, source, err := parseProxyHeader(h.received)
	if err != nil {
		c.abort(fmt.Errorf("%w: %w", ErrProxyHeader, err))
		return
	}
	if size == 0 {
		return
	}
	core := c.core
	core.notPending(c)
	c.link.SetDeadline(0)
	if source.IsValid() {
		c.link.SetRemoteAddr(source)
	}
	c.mu.Lock()
	c.more.header = nil
	c.mu.Unlock()
	if err := core.countPeer(c, c.RemoteAddr().Addr()); err != nil {
		c.abort(err)
		return
	}
	rest := h.received[size:]
	if c.limiter != nil && !c.limiter.bytes.take(len(rest)) {
		c.abort(ErrRateLimited)
		return
	}
	c.setUnread(rest)
	c.begin()
}

// parseProxyHeader reads the header at the beginning of b: how long it is, 0 while it is not complete, and whom the connection
// is from, invalid where the load balancer speaks for itself, e.g. to see whether we are there.
func parseProxyHeader(b []byte) (size int, source netip.AddrPort, err error) {
	if size, err = proxyHeaderSize(b); size == 0 || err != nil {
		return 0, source, err
	}
	if string(b[:len(proxyV2)]) == proxyV2 && b[len(proxyV2)] == proxyV2Local { // what follows is to be ignored, whatever it is
		return size, source, nil
	}
	header, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b[:size])))
	if err != nil {
		return 0, source, err
	}
	if from, _, ok := header.TCPAddrs(); ok && !header.Command.IsLocal() {
		source = tcp.AddrPort(net.Addr(from))
	}
	return size, source, nil
}

const (
	proxyV1 = "PROXY "
	proxyV2 = "\r\n\r\n\x00\r\nQUIT\n"

	maxProxyV1 = 107

	proxyV2Local = 0x20 // version and command
)

var errNoProxyHeader = errors.New("the connection does not begin with one")

// proxyHeaderSize is how long the header is that b begins with; 0 while that cannot be told, or not all of it is there.
func proxyHeaderSize(b []byte) (int, error) {
	begins := func(signature string) bool {
		n := min(len(b), len(signature))
		return string(b[:n]) == signature[:n]
	}
	switch {
	case begins(proxyV2):
		const fixed = 16 // up to and with the length of the rest
		if len(b) < fixed {
			return 0, nil
		}
		size := fixed + int(binary.BigEndian.Uint16(b[fixed-2:]))
		if size > maxProxyHeader {
			return 0, fmt.Errorf("%d bytes are more than %d", size, maxProxyHeader)
		}
		if len(b) < size {
			return 0, nil
		}
		return size, nil
	case begins(proxyV1):
		line, _, complete := strings.Cut(string(b[:min(len(b), maxProxyV1)]), "\r\n")
		switch {
		case complete:
			return len(line) + 2, nil
		case len(b) >= maxProxyV1:
			return 0, fmt.Errorf("no end of line within %d bytes", maxProxyV1)
		}
		return 0, nil
	}
	return 0, errNoProxyHeader
}
