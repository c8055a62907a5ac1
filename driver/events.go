package driver

import (
	"net/netip"
	"sync"
)

// eventQueue keeps events for Update. It is bounded by the number of connections: each event in it holds the slot of
// its connection.
type eventQueue struct {
	// delivering is held by the one goroutine that delivers.
	delivering sync.Mutex

	// Guarded by mu.
	mu     sync.Mutex
	events []queuedEvent
	next   int // of events
}

type queuedEvent struct {
	Event
	established bool
	holder      *conn // whose slot it holds
}

func (q *eventQueue) put(e queuedEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events = append(q.events, e)
}

func (q *eventQueue) take() (e queuedEvent, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == len(q.events) {
		return e, false
	}
	e = q.events[q.next]
	q.events[q.next] = queuedEvent{}
	if q.next++; q.next == len(q.events) {
		q.events, q.next = q.events[:0], 0
	}
	return e, true
}

// post delivers an event of c, now or with the next Update.
func (d *core) post(c *conn, ev Event, established bool) {
	if d.cfg.Dispatch == DispatchOnLoop {
		d.dispatch(ev, established)
		return
	}
	c.hold()
	d.queue.put(queuedEvent{Event: ev, established: established, holder: c})
}

// Update implements Driver.
func (d *core) Update() {
	if d.cfg.Dispatch != DispatchOnUpdate || !d.queue.delivering.TryLock() {
		// Nothing is queued, or another Update is delivering it: perhaps the one that called the subscriber that called this.
		return
	}
	defer d.queue.delivering.Unlock()
	d.deliverAll()
}

func (d *core) deliverAll() {
	for {
		e, ok := d.queue.take()
		if !ok {
			return
		}
		d.dispatch(e.Event, e.established)
		e.holder.release()
	}
}

// dispatch delivers an event to every subscriber.
func (d *core) dispatch(ev Event, established bool) {
	if established {
		d.bus.DispatchEstablished(ev, d.subscriberPanicked)
	} else {
		d.bus.DispatchDisconnected(ev, d.subscriberPanicked)
	}
}

func (d *core) subscriberPanicked(v any, stack []byte) { d.logPanic(netip.AddrPort{}, v, stack) }
