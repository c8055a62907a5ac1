package loop

import (
	"sync"
	"sync/atomic"

	errorx "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"github.com/panjf2000/gnet/v2/pkg/queue"
)

// flusher writes what other goroutines than the loop have queued: a goroutine on a poller of its own, which wakes
// once for a burst of sends to however many connections, and when a congested socket is writable again.
//
// The list of dirty connections is a lock-free stack: any goroutine pushes (a compare-and-swap on head), the flusher
// takes the whole of it (a swap with nil), so that there is no ABA problem. A connection is in it at most once
// (Conn.dirty, under its mu), so that nextDirty has one writer. Who finds it empty wakes the poller; a pusher that
// finds it not empty knows that somebody did, and that the flusher has not taken the list yet.
// BenchmarkSendFromGoroutines has the figures.
type flusher struct {
	// Immutable.
	poller *netpoll.Poller
	drain  queue.Func // drainDirty, made once: waking allocates nothing
	done   chan struct{}

	// Atomic.
	head atomic.Pointer[Conn]

	// Guarded by wakeMu: held for reading while the poller is woken, so that it is not closed meanwhile.
	wakeMu sync.RWMutex
	closed bool

	// Guarded by mu, a leaf.
	mu       sync.Mutex
	watched  map[int]*Conn // by descriptor
	unusable bool          // closed
}

func newFlusher() (*flusher, error) {
	poller, err := netpoll.OpenPoller()
	if err != nil {
		return nil, err
	}
	f := &flusher{poller: poller, done: make(chan struct{}), watched: make(map[int]*Conn)}
	f.drain = func(any) error { f.drainDirty(); return nil }
	return f, nil
}

func (f *flusher) run() {
	defer close(f.done)
	_ = f.poller.Polling(func(fd int, _ netpoll.IOEvent, _ netpoll.IOFlags) error {
		f.mu.Lock()
		c := f.watched[fd]
		f.mu.Unlock()
		if c != nil {
			c.flush()
		}
		return nil
	})
}

// push puts c, whose dirty flag the caller has set, into the list.
func (f *flusher) push(c *Conn) {
	for {
		head := f.head.Load()
		c.nextDirty = head
		if f.head.CompareAndSwap(head, c) {
			if head == nil {
				f.wake()
			}
			return
		}
	}
}

func (f *flusher) wake() {
	f.wakeMu.RLock()
	defer f.wakeMu.RUnlock()
	if !f.closed {
		_ = f.poller.Trigger(queue.HighPriority, f.drain, nil)
	}
}

func (f *flusher) drainDirty() {
	for c := f.head.Swap(nil); c != nil; {
		next := c.nextDirty // before the flag is cleared: then others may push c again
		c.mu.Lock()
		c.nextDirty = nil
		c.dirty = false
		if !c.corked.Load() && !c.watched {
			c.flushLocked()
		}
		done := c.afterFlushLocked()
		c.mu.Unlock()
		done.run(c)
		c = next
	}
}

// watch has c flushed when its descriptor is writable. Edge-triggered: the socket was found full just before, or
// is found writable at once.
func (f *flusher) watch(fd int, c *Conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unusable {
		return ErrEngineClosed
	}
	f.watched[fd] = c
	if err := f.poller.AddWrite(&netpoll.PollAttachment{FD: fd}, true); err != nil {
		delete(f.watched, fd)
		return err
	}
	return nil
}

// unwatch must come before the descriptor is closed: the poller would go on with the socket as long as a duplicate lives.
func (f *flusher) unwatch(fd int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unusable {
		return
	}
	delete(f.watched, fd)
	_ = f.poller.Delete(fd)
}

// close ends the goroutine. Every connection is closed by now.
func (f *flusher) close() {
	_ = f.poller.Trigger(queue.HighPriority, func(any) error { return errorx.ErrEngineShutdown }, nil)
	<-f.done
	f.wakeMu.Lock()
	f.closed = true
	f.wakeMu.Unlock()
	f.mu.Lock()
	f.unusable = true
	f.mu.Unlock()
	_ = f.poller.Close()
}
