package driver

import (
	"errors"
	"fmt"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// OnData implements link.Handler.
func (c *conn) OnData(b []byte) {
	if !c.registered {
		if h := c.awaitedHeader(); h != nil {
			c.receiveHeader(h, b)
			return
		}
	}
	if c.limiter != nil {
		c.limiter.credit()
		if !c.limiter.bytes.take(c.onTheWire(b)) {
			c.abort(ErrRateLimited)
			return
		}
	}
	if c.secure != nil && c.secure.session != nil {
		c.decrypt(b)
		return
	}
	c.receive(b)
}

// onTheWire is how many bytes b came to, which is decrypted where the link does TLS itself.
func (c *conn) onTheWire(b []byte) int {
	if c.secure == nil || c.secure.session != nil {
		return len(b)
	}
	received := c.link.Received()
	n := int(received - c.limiter.received)
	c.limiter.received = received
	return n
}

// takesData reports whether the application still gets packets.
func (c *conn) takesData() bool {
	return c.link.State() == link.Open || c.secure != nil && c.secure.late.Load()
}

// receive takes bytes of the stream of frames.
func (c *conn) receive(b []byte) {
	if !c.takesData() {
		return
	}
	var packets int
	var err error
	if c.mailbox != nil {
		packets, err = c.mailbox.put(b)
	} else {
		packets, err = c.deliver(b)
	}
	if packets > 0 {
		c.received.Add(uint64(packets))
		c.core.stripe(c).packetsReceived.Add(uint64(packets))
		if c.limiter != nil && c.mailbox != nil && !c.limiter.packets.take(packets) {
			c.abort(ErrRateLimited)
			return
		}
	}
	if err != nil {
		if !errors.Is(err, ErrProtocol) {
			err = fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		c.abort(err)
	}
}

// deliver gives the whole packets in what was read so far to OnPacket, and keeps the rest.
func (c *conn) deliver(b []byte) (packets int, err error) {
	if c.partial != nil {
		c.partial.B = append(c.partial.B, b...)
		b = c.partial.B
	}
	for len(b) > 0 {
		packet, n, splitErr := c.core.split(b)
		if splitErr != nil || n == 0 {
			err = splitErr
			break
		}
		b = b[n:]
		if c.limiter != nil && !c.limiter.packets.take(1) {
			c.abort(ErrRateLimited)
			break
		}
		packets++
		if !c.onPacket(packet) || !c.takesData() {
			b = nil
		}
	}
	c.keep(b)
	return packets, err
}

// onPacket calls the application; false when it panicked.
func (c *conn) onPacket(packet []byte) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v, nil)
		}
	}()
	c.core.cfg.OnPacket(c, packet)
	return true
}

// keep holds on to the beginning of a packet.
func (c *conn) keep(rest []byte) {
	switch {
	case c.partial != nil && len(rest) == 0:
		bytebufferpool.Put(c.partial)
		c.partial = nil
	case c.partial != nil:
		c.partial.B = c.partial.B[:copy(c.partial.B, rest)]
	case len(rest) > 0:
		c.partial = bytebufferpool.Get()
		c.partial.B = append(c.partial.B, rest...)
	}
}
