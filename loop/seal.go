package loop

import (
	"syscall"

	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// Sealed implements link.Sealing.
func (c *Conn) Sealed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = true
}

// FlushSealer implements link.Sealing.
func (c *Conn) FlushSealer() error {
	c.mu.Lock()
	if s := c.State(); s == link.Closed || s == link.Lingering || c.broken {
		c.mu.Unlock()
		return link.ErrClosed
	}
	if c.out.len() > c.loop.engine.cfg.OutboundLimit+sealerSlack {
		c.mu.Unlock()
		return link.ErrFull
	}
	c.sealLocked(nil)
	var done after
	if c.scheduleLocked() { // nobody else is about to flush: waking the flusher would cost more
		c.dirty = false
		c.flushLocked()
		done = c.afterFlushLocked()
	}
	done.finish = done.finish || c.finishableLocked()
	c.mu.Unlock()
	done.run(c)
	return nil
}

// Execute implements link.Sealing.
func (c *Conn) Execute(f func()) { c.loop.execute(func() { c.guard(f) }) }

// KeepAwake implements link.Sealing. A loop that waits, in epoll_wait(2), keeps its P until the runtime's monitor takes it away, some
// 100 µs later if the cores are busy: with as many Ps as workers, one of those stands still so long. A loop that looks and finds nothing yields.
func (c *Conn) KeepAwake() {
	for _, l := range c.loop.engine.loops {
		if l.busy.Swap(false) {
			l.execute(l.stayBusyOnLoop)
		}
	}
}

func (l *Loop) stayBusyOnLoop() { l.busy.Store(true) }

// sealerSlack is what a Sealer may have waiting beyond the limit of what is queued: answers of the protocol, e.g. key updates.
const sealerSlack = 64 << 10

// sealLocked puts the wire form of plain behind what waits.
func (c *Conn) sealLocked(plain []byte) {
	if c.out.buf == nil {
		c.out.buf = bytebufferpool.Get()
	}
	if c.out.sent > len(c.out.buf.B)/2 { // else what a queue that is never empty had written would stay in it
		c.out.compact()
	}
	b, err := c.h.(link.Sealer).Seal(c.out.buf.B, plain)
	c.out.buf.B = b
	if len(b) == c.out.sent {
		c.out.release()
	}
	if err != nil {
		c.abortLocked(err)
	}
}

// refillLocked seals what is queued when all that was sealed before is written, so that small packets share records, and,
// when nothing is queued and the connection is Draining, the end. It reports whether there is something to write.
func (c *Conn) refillLocked() bool {
	if c.out.buf != nil || !c.sealed {
		return c.out.buf != nil
	}
	if plain := c.plain; plain != nil {
		c.plain = nil
		c.sealLocked(plain.B)
		bytebufferpool.Put(plain)
	} else if c.State() == link.Draining && !c.ended {
		c.ended = true
		c.out.buf = bytebufferpool.Get()
		b, err := c.h.(link.Sealer).SealEnd(c.out.buf.B)
		c.out.buf.B = b
		if err != nil || len(b) == 0 {
			c.out.release()
		}
	}
	return c.out.buf != nil
}

// sealEndLocked tells the peer, as far as one write goes, that a connection ends that is aborted.
func (c *Conn) sealEndLocked() {
	if !c.sealed || c.ended || c.broken || c.fd < 0 || c.out.buf != nil {
		return
	}
	c.ended = true
	buf := bytebufferpool.Get()
	if b, err := c.h.(link.Sealer).SealEnd(buf.B); err == nil {
		buf.B = b
		_, _ = syscall.Write(int(c.fd), b)
	}
	bytebufferpool.Put(buf)
}
