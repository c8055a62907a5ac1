package loop

import (
	"github.com/valyala/bytebufferpool"

	"gridstream/loop/link"
)

// outbound is the bytes that wait for a socket: one contiguous pooled buffer, so that many small sends become one
// write. Empty, it holds no buffer. The zero value is ready. Guarded by its connection's mu.
type outbound struct {
	buf  *bytebufferpool.ByteBuffer // nil: empty
	sent int                        // of buf, written already
}

func (o *outbound) len() int {
	if o.buf == nil {
		return 0
	}
	return len(o.buf.B) - o.sent
}

func (o *outbound) bytes() []byte {
	if o.buf == nil {
		return nil
	}
	return o.buf.B[o.sent:]
}

// append adds the frame of b, or b itself where enc is nil; most is the most bytes that it takes. If enc panics, nothing
// was added.
func (o *outbound) append(enc link.Encoder, b []byte, most int) {
	if o.sent > 0 && len(o.buf.B)+most > cap(o.buf.B) {
		o.compact()
	}
	o.buf = appendTo(o.buf, enc, b)
}

// compact drops what was written.
func (o *outbound) compact() {
	o.buf.B = o.buf.B[:copy(o.buf.B, o.buf.B[o.sent:])]
	o.sent = 0
}

// appendTo appends the frame of b to buf, or where that is nil to a new one.
func appendTo(buf *bytebufferpool.ByteBuffer, enc link.Encoder, b []byte) *bytebufferpool.ByteBuffer {
	if buf == nil {
		buf = bytebufferpool.Get()
	}
	buf.B = appendFrame(buf.B, enc, b)
	return buf
}

func appendFrame(dst []byte, enc link.Encoder, b []byte) []byte {
	if enc == nil {
		return append(dst, b...)
	}
	return enc.AppendFrame(dst, b)
}

// advance tells that n bytes were written.
func (o *outbound) advance(n int) {
	o.sent += n
	if o.sent == len(o.buf.B) {
		o.release()
	}
}

// release drops what waits and gives the buffer back.
func (o *outbound) release() {
	if o.buf != nil {
		bytebufferpool.Put(o.buf)
	}
	*o = outbound{}
}
