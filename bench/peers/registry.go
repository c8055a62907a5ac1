package peers

import (
	"sync"
	"sync/atomic"

	"gridstream/bench"
)

// registry is the established connections, and how many came and went.
type registry[C comparable] struct {
	established, disconnected atomic.Uint64

	mu    sync.RWMutex
	conns map[C]struct{}
}

func newRegistry[C comparable]() *registry[C] { return &registry[C]{conns: make(map[C]struct{})} }

func (r *registry[C]) add(c C) {
	r.mu.Lock()
	r.conns[c] = struct{}{}
	r.mu.Unlock()
	r.established.Add(1)
}

func (r *registry[C]) remove(c C) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	r.disconnected.Add(1)
}

func (r *registry[C]) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.conns)
}

func (r *registry[C]) events() bench.Events {
	return bench.Events{Established: r.established.Load(), Disconnected: r.disconnected.Load()}
}

// each calls send for every connection, and returns how often it was successful.
func (r *registry[C]) each(send func(C) error) (sent int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for c := range r.conns {
		if send(c) == nil {
			sent++
		}
	}
	return sent
}
