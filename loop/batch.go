package loop

import (
	"sync/atomic"
	"time"
)

// batches tells the flushers of sends to many connections, which often come one after the other: a game loop broadcasts what
// happened in a tick. A flusher that starts with the first packet writes it to everybody, and then each of the next ones; one that
// waits for the last writes once. BenchmarkBroadcast has the figures.
type batches struct {
	// Atomic.
	begun   atomic.Uint64
	running atomic.Int64
}

const (
	batchGap  = 50 * time.Microsecond // between batches that are taken together
	batchMost = 2 * time.Millisecond  // that the first one waits for others
)

// Batch implements link.Transport.
func (e *Engine) Batch(f func()) {
	e.batches.begun.Add(1)
	e.batches.running.Add(1)
	defer e.batches.running.Add(-1)
	f()
}

// settle waits for the batches under way and those that follow closely, if there was one since the last call for seen, and reports
// whether there was.
func (b *batches) settle(seen *uint64) bool {
	begun := b.begun.Load()
	if begun == *seen {
		return false
	}
	for start := time.Now(); time.Since(start) < batchMost; {
		time.Sleep(batchGap)
		last := begun
		begun = b.begun.Load()
		if begun == last && b.quiet() {
			break
		}
	}
	*seen = begun
	return true
}

// quiet reports that no batch is under way.
func (b *batches) quiet() bool { return b.running.Load() == 0 }
