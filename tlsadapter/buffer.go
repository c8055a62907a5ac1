package tlsadapter

import "sync"

// buffer is a byte queue from one of the pools below. Sessions take one when there is something to keep
// and give it back when it is empty, so that an idle session holds none.
type buffer struct {
	b   []byte
	off int // b[:off] has been consumed
}

func (b *buffer) unread() []byte { return b.b[b.off:] }
func (b *buffer) consume(n int)  { b.off += n }
func (b *buffer) empty() bool    { return b.off == len(b.b) }

// append adds p; what was consumed makes room before the buffer grows.
func (b *buffer) append(p []byte) {
	if b.off > 0 && len(b.b)+len(p) > cap(b.b) {
		b.b, b.off = b.b[:copy(b.b, b.unread())], 0
	}
	b.b = append(b.b, p...)
}

// len returns the number of unread bytes; b may be nil.
func (b *buffer) len() int {
	if b == nil {
		return 0
	}
	return len(b.b) - b.off
}

// bufferPool lends buffers. One that grew beyond limit is left to the collector.
type bufferPool struct {
	limit int
	pool  sync.Pool
}

// Input buffers hold what waits for a handshake: a peer that goes silent there keeps one, so they stay small.
// Output buffers are emptied at once by the driver.
var (
	inputPool  = bufferPool{limit: 4 << 10}
	outputPool = bufferPool{limit: 64 << 10}
)

func (p *bufferPool) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

// put takes b back; b may be nil. There is only ciphertext in it: nothing to wipe.
func (p *bufferPool) put(b *buffer) {
	if b == nil || cap(b.b) > p.limit {
		return
	}
	b.b, b.off = b.b[:0], 0
	p.pool.Put(b)
}

// scratch is where Open decrypts to: one record's plaintext, so that a single Read always empties crypto/tls.
type scratch [maxPlaintext]byte

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}
