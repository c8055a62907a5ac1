package driver

import (
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// eventQueue keeps events for Update. It is bounded by the number of connections: each event in it holds the slot of
// its connection.
type eventQueue struct {
	// delivering is held by the one goroutine that delivers.
	delivering sync.Mutex

	// Atomic: the goroutine that is in a subscriber, while it delivers; 0: none.
	by atomic.Uint64

	// Guarded by delivering.
	current delivery
	stack   [64]byte // see goroutine

	// Guarded by mu.
	mu     sync.Mutex
	events []queuedEvent
	next   int // of events
}

type queuedEvent struct {
	Event
	established bool
	conn        *conn // whose slot it holds; Event.Conn may be nil
}

// delivery is one event on its way from the queue to the subscribers that there were when it began.
type delivery struct {
	queuedEvent
	list  []*Subscription
	turns int // how many of list had theirs
}

// delivered is a delivery with nothing left to do, whoever is still in it.
var delivered = delivery{turns: math.MaxInt}

func (d *delivery) run() {
	deliver(d.list, &d.turns, d.Event, d.established, d.conn.subscriberPanicked)
}

func (q *eventQueue) put(e queuedEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next > len(q.events)/2 {
		n := copy(q.events, q.events[q.next:])
		clear(q.events[n:])
		q.events, q.next = q.events[:n], 0
	}
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

func (q *eventQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.events) - q.next
}

// postEstablished delivers the event, now or with the next Update.
func (d *core) postEstablished(c *conn, ev Event) {
	if d.cfg.Dispatch == DispatchOnLoop {
		d.dispatch(c, ev, true)
		return
	}
	c.hold()
	d.queue.put(queuedEvent{Event: ev, established: true, conn: c})
}

// postLast delivers a connection's Disconnected, now or with the next Update. The hold of its link on its slot is given back before subscribers
// are told, so that they may connect again at once.
func (d *core) postLast(c *conn, ev Event) {
	if d.cfg.Dispatch == DispatchOnLoop {
		c.release()
		d.dispatch(c, ev, false)
		return
	}
	d.queue.put(queuedEvent{Event: ev, conn: c})
}

// Update implements Driver.
func (d *core) Update() {
	if d.cfg.Dispatch != DispatchOnUpdate || !d.queue.delivering.TryLock() {
		// Nothing is queued, or another Update is delivering it: perhaps the one that called the subscriber that called this.
		return
	}
	defer d.queue.delivering.Unlock()
	d.deliverQueued(d.queue.len())
}

// deliverRest delivers what is queued when the driver closes, after the Update that is under way.
func (d *core) deliverRest() {
	if !d.queue.delivering.TryLock() {
		if d.inUpdate() { // the subscribers behind the one that closes have the event that it has, and then the others
			d.queue.current.run()
			d.deliverQueued(math.MaxInt)
			return
		}
		d.queue.delivering.Lock()
	}
	defer d.queue.delivering.Unlock()
	d.deliverQueued(math.MaxInt)
}

func (d *core) deliverQueued(most int) {
	q := &d.queue
	if q.len() == 0 {
		return
	}
	before := q.by.Swap(goroutine(q.stack[:]))
	defer q.by.Store(before)
	for range most {
		e, ok := q.take()
		if !ok {
			return
		}
		e.conn.release()
		q.current = delivery{queuedEvent: e, list: d.bus.subscriptions()}
		q.current.run()
		q.current = delivered
	}
}

// dispatch delivers an event of c to every subscriber.
func (d *core) dispatch(c *conn, ev Event, established bool) {
	if established {
		d.bus.DispatchEstablished(ev, c.subscriberPanicked)
	} else {
		d.bus.DispatchDisconnected(ev, c.subscriberPanicked)
	}
}

// inUpdate reports whether the caller is a subscriber that this driver's Update called on this goroutine, or its Close.
func (d *core) inUpdate() bool {
	by := d.queue.by.Load()
	return by != 0 && by == goroutine(make([]byte, len(d.queue.stack)))
}

// goroutine is the number of the caller's goroutine, which a trace of its stack begins with. buf is for as much of it.
func goroutine(buf []byte) (id uint64) {
	for _, digit := range buf[len("goroutine "):runtime.Stack(buf, false)] {
		if digit < '0' || digit > '9' {
			break
		}
		id = 10*id + uint64(digit-'0')
	}
	return id
}

// inCallback reports whether the caller is a callback on an event loop, or on another goroutine that closing waits for.
func inCallback() bool {
	return calledBy("/driver.(*conn).OnOpen", "/driver.(*conn).OnData", "/driver.(*conn).OnWake",
		"/driver.(*conn).OnClose", "/driver.(*security).end", "(*Session).coroutine.func1", "/stdnet.(*conn).handshake", "/stdnet.(*conn).readOnce",
		"/driver.(*core).connect")
}

// calledBy looks for functions among the callers. It is slow, and only for those who block, or close.
func calledBy(functions ...string) bool {
	pcs := make([]uintptr, 64)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for {
			frame, more := frames.Next()
			for _, f := range functions {
				// By the end of the name: where it is inlined its caller's comes before.
				if strings.HasSuffix(frame.Function, f) {
					return true
				}
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}
