package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// flusher writes what other goroutines than the loop have queued: a goroutine, which wakes once for a burst of sends to however
// many connections. What Transport.Batch queued, which is for many, it writes with the help of others, on all cores.
//
// The list of dirty connections is a lock-free stack: any goroutine pushes (a compare-and-swap on head), the flusher
// takes the whole of it (a swap with nil), so that there is no ABA problem. A connection is in it at most once
// (Conn.dirty, under its mu), so that nextDirty has one writer. Who finds it empty wakes the goroutine; a pusher that
// finds it not empty knows that somebody did, and that the flusher has not taken the list yet.
// BenchmarkSendFromGoroutines and BenchmarkBroadcast have the figures.
type flusher struct {
	// Immutable.
	batches *batches
	wake    chan struct{} // holds one: somebody found the list empty since the flusher last took it
	help    chan struct{} // holds one for each helper; closed when the goroutine ends
	running sync.WaitGroup

	// Owned by the goroutine.
	seen uint64 // of batches

	// Atomic.
	head    atomic.Pointer[Conn]
	stopped atomic.Bool

	// Guarded by mu, a leaf.
	mu   sync.Mutex
	rest *Conn // of a list that is flushed with help
}

// share is how many connections a goroutine flushes before it takes more of what is flushed by several.
const share = 32

func startFlusher(b *batches, helpers int) *flusher {
	f := &flusher{batches: b, wake: make(chan struct{}, 1), help: make(chan struct{}, helpers)}
	f.running.Go(f.run)
	for range helpers {
		f.running.Go(func() {
			for range f.help {
				f.helpAlong()
			}
		})
	}
	return f
}

// helpersOf is how many helpers each of so many loops has: all together can keep every core busy, with the flushers.
func helpersOf(loops int) int { return max(0, runtime.GOMAXPROCS(0)/loops-1) }

func (f *flusher) run() {
	defer close(f.help)
	for last := false; ; {
		<-f.wake
		if f.stopped.Load() {
			return
		}
		batch := f.batches.settle(&f.seen)
		if list := f.head.Swap(nil); cap(f.help) > 0 && (batch || last) { // last: what is left of one that took longer
			f.flushWithHelp(list)
		} else {
			flushAll(list)
		}
		last = batch
	}
}

// push puts c, whose dirty flag the caller has set, into the list.
func (f *flusher) push(c *Conn) {
	for {
		head := f.head.Load()
		c.nextDirty = head
		if f.head.CompareAndSwap(head, c) {
			if head == nil {
				f.ring()
			}
			return
		}
	}
}

func (f *flusher) ring() {
	select {
	case f.wake <- struct{}{}:
	default: // it has been woken, and has not looked yet
	}
}

// flushWithHelp has others take shares of the list. While there are batches the processor is needed for these: then it is alone.
func (f *flusher) flushWithHelp(list *Conn) {
	f.mu.Lock()
	f.rest = list
	f.mu.Unlock()
	for list := f.takeShare(); list != nil; list = f.takeShare() {
		if f.batches.quiet() {
			f.askForHelp()
		}
		flushAll(list)
	}
}

func (f *flusher) askForHelp() {
	for range cap(f.help) {
		select {
		case f.help <- struct{}{}:
		default:
			return
		}
	}
}

func (f *flusher) helpAlong() {
	for f.batches.quiet() {
		list := f.takeShare()
		if list == nil {
			return
		}
		flushAll(list)
	}
}

func (f *flusher) takeShare() *Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, last := f.rest, f.rest
	if list == nil {
		return nil
	}
	for range share - 1 {
		if last.nextDirty == nil {
			break
		}
		last = last.nextDirty
	}
	f.rest, last.nextDirty = last.nextDirty, nil
	return list
}

// flushAll flushes a list that is the caller's.
func flushAll(list *Conn) {
	for c := list; c != nil; {
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

// close ends the goroutines. Every connection is closed by now.
func (f *flusher) close() {
	f.stopped.Store(true)
	f.ring()
	f.running.Wait()
}
