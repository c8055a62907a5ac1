package driver

import (
	"context"
	"errors"

	"gridstream/loop/link"
)

func (c *conn) Send(packet []byte) error {
	err := c.send(packet)
	if err != nil && errors.Is(err, ErrOutboundFull) {
		c.full()
	}
	return err
}

// full is what follows where there is no room for a packet, and nobody waits.
func (c *conn) full() {
	c.rejected()
	if c.core.cfg.SlowConsumer == DisconnectSlow {
		c.abort(ErrSlowConsumer)
	}
}

// rejected counts a packet that there was no room for.
func (c *conn) rejected() { c.core.stripe(c).sendsRejected.Add(1) }

// send is Send without what follows where there is no room.
func (c *conn) send(packet []byte) error {
	core := c.core
	if err := core.checkPacket(packet); err != nil {
		return &Error{Op: "Send", Code: ErrSend, Address: c.RemoteAddr(), Err: err}
	}
	if c.secure != nil && !c.secure.ready.Load() {
		return &Error{Op: "Send", Code: ErrSend, Address: c.RemoteAddr(), Err: ErrHandshaking}
	}
	err := c.link.Write(core.encoder, packet, len(packet)+core.overhead)
	if err != nil {
		return c.sendError(err)
	}
	c.sent.Add(1)
	core.stripe(c).packetsSent.Add(1)
	return nil
}

// sendFrame queues a packet that is encoded already, for Broadcast, which counts it in the driver's Stats.
func (c *conn) sendFrame(frame []byte) bool {
	if c.secure != nil && !c.secure.ready.Load() {
		return false
	}
	err := c.link.Write(nil, frame, len(frame))
	if err == nil {
		c.sent.Add(1)
		return true
	}
	if errors.Is(err, link.ErrFull) {
		c.full()
	}
	return false
}

func (c *conn) sendError(err error) error {
	cause := ErrConnClosed
	if errors.Is(err, link.ErrFull) {
		cause = ErrOutboundFull
	}
	return &Error{Op: "Send", Code: ErrSend, Address: c.RemoteAddr(), Err: cause}
}

func (c *conn) SendContext(ctx context.Context, packet []byte) error {
	fail := func(cause error) error {
		return &Error{Op: "SendContext", Code: ErrSend, Address: c.RemoteAddr(), Err: cause}
	}
	for waited := false; ; waited = true {
		if err := ctx.Err(); err != nil {
			if waited {
				c.rejected()
			}
			return fail(err)
		}
		err := c.send(packet)
		if err == nil || !errors.Is(err, ErrOutboundFull) {
			return err
		}
		if !waited && inCallback() {
			c.rejected()
			return fail(ErrInCallback)
		}
		// Wait for what happens after this point: try once more with the channel there.
		drained := c.whenDrained()
		if err := c.send(packet); err == nil || !errors.Is(err, ErrOutboundFull) {
			return err
		}
		select {
		case <-drained:
		case <-ctx.Done():
		}
	}
}

// whenDrained is closed at the next OnDrained or OnClose.
func (c *conn) whenDrained() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.moreLocked()
	if m.drained == nil {
		m.drained = make(chan struct{})
		if c.gone {
			close(m.drained)
		}
	}
	return m.drained
}

// OnDrained implements link.Handler.
func (c *conn) OnDrained() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone && c.more != nil && c.more.drained != nil {
		close(c.more.drained)
		c.more.drained = nil
	}
}
