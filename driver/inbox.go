package driver

import (
	"context"
	"io"
	"sync"

	"github.com/valyala/bytebufferpool"
)

// inbox is what waits for Receive: a queue of the connections that have a packet. A connection is in it at most once
// and goes to its end after each packet, so that they take turns; every step is O(1).
type inbox struct {
	signal chan struct{} // holds one: there may be something
	closed chan struct{}

	// Guarded by mu. mailbox.mu -> inbox.mu.
	mu          sync.Mutex
	first, last *mailbox
}

func newInbox() *inbox {
	return &inbox{signal: make(chan struct{}, 1), closed: make(chan struct{})}
}

// mailbox is one connection's packets that wait for Receive, as the frames that they came in. What is in it is bounded by
// Config.InboundBufferSize (or one packet) and what one read of the socket brings: then reading is paused.
type mailbox struct {
	// Immutable.
	conn  *conn
	inbox *inbox

	// Guarded by mu.
	mu      sync.Mutex
	buf     *bytebufferpool.ByteBuffer // nil: empty
	taken   int                        // of buf: received by the application
	whole   int                        // of buf: ends the last whole frame
	packets int                        // whole and not taken
	queued  bool                       // in the inbox, or held by a Receive
	paused  bool                       // the connection's reading is
	ended   bool                       // the connection is closed; its slot is given back with the last packet

	// Guarded by inbox.mu.
	next *mailbox
}

// put adds what was read. It returns how many packets it completed, and the error of the frame that cannot be.
func (m *mailbox) put(b []byte) (packets int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.buf == nil {
		m.buf = bytebufferpool.Get()
	}
	if m.taken > 0 && len(m.buf.B)+len(b) > cap(m.buf.B) {
		m.compactLocked()
	}
	m.buf.B = append(m.buf.B, b...)
	cfg := &m.conn.core.cfg
	for err == nil && m.whole < len(m.buf.B) {
		var n int
		_, n, err = m.conn.core.split(m.buf.B[m.whole:])
		if n == 0 {
			break
		}
		m.whole += n
		packets++
	}
	m.packets += packets
	if m.packets > 0 && !m.queued {
		m.queued = true
		m.inbox.push(m)
	}
	if m.packets > 0 && len(m.buf.B)-m.taken >= cfg.InboundBufferSize && !m.paused {
		m.paused = true
		m.conn.pause(pauseInbound)
	}
	return packets, err
}

func (m *mailbox) compactLocked() {
	m.buf.B = m.buf.B[:copy(m.buf.B, m.buf.B[m.taken:])]
	m.whole -= m.taken
	m.taken = 0
}

// take copies the next packet to dst. more tells that another waits, last that there will be none.
func (m *mailbox) take(dst []byte) (n int, more, last bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.packets == 0 { // hijacked meanwhile
		m.queued = false
		return 0, false, false, nil
	}
	cfg := &m.conn.core.cfg
	packet, size, _ := cfg.Framing.Split(m.buf.B[m.taken:m.whole], cfg.MaxPacketSize)
	if len(packet) > len(dst) {
		return len(packet), true, false, io.ErrShortBuffer
	}
	n = copy(dst, packet)
	m.taken += size
	m.packets--
	more = m.packets > 0
	m.queued = more
	if m.taken == len(m.buf.B) || m.ended && !more {
		m.releaseLocked()
	}
	if m.paused && (m.packets == 0 || m.sizeLocked() <= cfg.InboundBufferSize/2) {
		// Without a packet to receive, what is left is the beginning of one, which needs the rest.
		m.paused = false
		m.conn.resume(pauseInbound)
	}
	return n, more, m.ended && !more, nil
}

func (m *mailbox) releaseLocked() {
	if m.buf != nil {
		bytebufferpool.Put(m.buf)
	}
	m.buf, m.taken, m.whole, m.packets = nil, 0, 0, 0
}

func (m *mailbox) sizeLocked() int {
	if m.buf == nil {
		return 0
	}
	return len(m.buf.B) - m.taken
}

func (m *mailbox) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sizeLocked()
}

// end tells that nothing more will come. Packets that are left hold the connection's slot until they are received.
func (m *mailbox) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	if m.packets == 0 {
		m.releaseLocked()
		return
	}
	m.conn.hold()
}

// drain takes out everything: the bytes that no Receive will get any more.
func (m *mailbox) drain() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.buf == nil {
		return nil
	}
	b := append([]byte(nil), m.buf.B[m.taken:]...)
	m.releaseLocked()
	return b
}

func (q *inbox) push(m *mailbox) {
	q.mu.Lock()
	first := q.last == nil
	if first {
		q.first = m
	} else {
		q.last.next = m
	}
	q.last = m
	q.mu.Unlock()
	if first {
		q.notify()
	}
}

// pushFront puts back what pop gave.
func (q *inbox) pushFront(m *mailbox) {
	q.mu.Lock()
	m.next = q.first
	q.first = m
	if q.last == nil {
		q.last = m
	}
	q.mu.Unlock()
	q.notify()
}

func (q *inbox) pop() *mailbox {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.first
	if m == nil {
		return nil
	}
	if q.first = m.next; q.first == nil {
		q.last = nil
	}
	m.next = nil
	return m
}

func (q *inbox) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.first == nil
}

func (q *inbox) notify() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// wait blocks until the inbox is not empty. Several may wait: who is woken wakes the next.
func (q *inbox) wait(ctx context.Context) error {
	for q.empty() {
		select {
		case <-q.signal:
		case <-ctx.Done():
			return ctx.Err()
		case <-q.closed:
			if q.empty() {
				return ErrDriverClosed
			}
		}
	}
	q.notify()
	return nil
}
