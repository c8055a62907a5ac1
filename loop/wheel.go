package loop

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	tick       = 20 * time.Millisecond
	wheelSlots = 256 // per level: 5.12 s of ticks, then 22 minutes of those
)

// wheel is a two-level timing wheel of connections: one entry each, at its earliest time limit or before. Nothing is done on
// the path of a packet: reading and writing store a time, and a connection whose entry comes up looks at what was
// stored and says when to look again. It ticks only while it holds something.
type wheel struct {
	armed atomic.Int64 // entries; written under mu

	// Guarded by mu, a leaf.
	mu   sync.Mutex
	now  int64             // the tick that was handled last
	near [wheelSlots]timer // list heads: ticks now+1 … now+256
	far  [wheelSlots]timer // list heads: rounds of 256 ticks
	due  []*Conn           // scratch of advance
}

// timer is a connection's place in a wheel. Guarded by wheel.mu.
type timer struct {
	prev, next *timer // nil: not in the wheel
	at         int64  // tick
	conn       *Conn  // nil in a list's head
}

func (w *wheel) init() {
	for i := range w.near {
		w.near[i].prev, w.near[i].next = &w.near[i], &w.near[i]
		w.far[i].prev, w.far[i].next = &w.far[i], &w.far[i]
	}
}

// schedule puts c's entry at the time d from now, or leaves it where it is when that is earlier. It reports whether the
// wheel held nothing before.
func (w *wheel) schedule(c *Conn, now, d time.Duration) (first bool) {
	at := int64((now+d)/tick) + 1
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &c.timer
	if t.next != nil {
		if t.at <= at {
			return false
		}
		t.unlink()
	} else if first = w.armed.Add(1) == 1; first {
		w.now = int64(now / tick)
	}
	t.conn, t.at = c, max(at, w.now+1)
	w.insertLocked(t)
	return first
}

func (w *wheel) insertLocked(t *timer) {
	head := &w.near[t.at%wheelSlots]
	if t.at-w.now > wheelSlots {
		// Not further than the wheel reaches: the entry only comes up early, and goes in again.
		round := min(t.at/wheelSlots, w.now/wheelSlots+wheelSlots-1)
		head = &w.far[round%wheelSlots]
	}
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
}

// remove takes c's entry out.
func (w *wheel) remove(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.timer.next != nil {
		c.timer.unlink()
		w.armed.Add(-1)
	}
}

func (t *timer) unlink() {
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next = nil, nil
}

// advance takes out the entries that came up by now. The slice is good until the next call; only the clock calls it.
func (w *wheel) advance(now time.Duration) []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.due)
	w.due = w.due[:0]
	for to := int64(now / tick); w.now < to && w.armed.Load() > 0; {
		w.now++
		if w.now%wheelSlots == 0 {
			w.cascadeLocked(&w.far[w.now/wheelSlots%wheelSlots])
		}
		head := &w.near[w.now%wheelSlots]
		for head.next != head {
			t := head.next
			t.unlink()
			w.armed.Add(-1)
			w.due = append(w.due, t.conn)
		}
	}
	return w.due
}

func (w *wheel) cascadeLocked(head *timer) {
	for head.next != head {
		t := head.next
		t.unlink()
		w.insertLocked(t)
	}
}
