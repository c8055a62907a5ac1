package loop

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	errorx "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"github.com/panjf2000/gnet/v2/pkg/queue"

	"gridstream/loop/link"
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
	batches *batches
	poller  *netpoll.Poller
	bell    bell // rung to wake the goroutine: unlike Poller.Trigger it allocates nothing
	done    chan struct{}

	// Owned by the goroutine.
	seen uint64 // of batches

	// Atomic.
	head atomic.Pointer[Conn]

	// Guarded by wakeMu: held for reading while the bell is rung, so that it is not closed meanwhile.
	wakeMu sync.RWMutex
	closed bool

	// Guarded by mu, a leaf.
	mu       sync.Mutex
	watched  map[int]*Conn // by descriptor
	unusable bool          // closed
}

func newFlusher(b *batches) (*flusher, error) {
	poller, err := netpoll.OpenPoller()
	if err != nil {
		return nil, err
	}
	f := &flusher{batches: b, poller: poller, done: make(chan struct{}), watched: make(map[int]*Conn)}
	if f.bell, err = newBell(); err == nil {
		if err = poller.AddRead(&netpoll.PollAttachment{FD: f.bell.r}, false); err == nil {
			return f, nil
		}
		f.bell.close()
	}
	_ = poller.Close()
	return nil, err
}

func (f *flusher) run() {
	defer close(f.done)
	_ = f.poller.Polling(func(fd int, _ netpoll.IOEvent, _ netpoll.IOFlags) error {
		if fd == f.bell.r {
			f.bell.hush()
			f.batches.settle(&f.seen)
			f.drainDirty()
			return nil
		}
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
		f.bell.ring()
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
		return link.ErrTransportClosed
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
	f.release()
}

// release gives the descriptors back. The goroutine has ended, or was never started.
func (f *flusher) release() {
	f.wakeMu.Lock()
	f.closed = true
	f.wakeMu.Unlock()
	f.mu.Lock()
	f.unusable = true
	f.mu.Unlock()
	f.bell.close()
	_ = f.poller.Close()
}

// bell is a pipe to a poller.
type bell struct{ r, w int }

func newBell() (b bell, err error) {
	var p [2]int
	syscall.ForkLock.RLock()
	err = syscall.Pipe(p[:])
	if err == nil {
		syscall.CloseOnExec(p[0])
		syscall.CloseOnExec(p[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return b, os.NewSyscallError("pipe", err)
	}
	b = bell{r: p[0], w: p[1]}
	for _, fd := range p {
		if err := syscall.SetNonblock(fd, true); err != nil {
			b.close()
			return b, os.NewSyscallError("setnonblock", err)
		}
	}
	return b, nil
}

// ring wakes the poller. A full pipe has woken it already.
func (b bell) ring() {
	var one [1]byte
	for {
		if _, err := syscall.Write(b.w, one[:]); err != syscall.EINTR {
			return
		}
	}
}

// hush empties the pipe.
func (b bell) hush() {
	var buf [64]byte
	for {
		if n, err := syscall.Read(b.r, buf[:]); n < len(buf) && err != syscall.EINTR {
			return
		}
	}
}

func (b bell) close() {
	_ = syscall.Close(b.r)
	_ = syscall.Close(b.w)
}
