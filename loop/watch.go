package loop

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gridstream/loop/link"
)

// watch measures how long the loops take to get to what they are asked to do: a loop that a callback holds up, or that has more to do
// than it can, is late for everybody on it.
type watch struct {
	// Immutable.
	stop chan struct{}
	done sync.WaitGroup
}

// probeEvery is how often each loop is asked, and slowAfter when it is worth a line in the log.
const (
	probeEvery = 100 * time.Millisecond
	slowAfter  = 100 * time.Millisecond
)

// probe is a task that a loop is asked to run.
type probe struct {
	// Atomic: on the engine's clock.
	posted atomic.Int64 // 0: none is under way
	took   atomic.Int64 // the last one

	// Owned by the watch.
	slow bool // since the line in the log
}

// latency is how long the last one took, or the one under way does.
func (p *probe) latency(now time.Duration) time.Duration {
	took := time.Duration(p.took.Load())
	if posted := time.Duration(p.posted.Load()); posted != 0 {
		return max(took, now-posted)
	}
	return took
}

func (e *Engine) startWatch() {
	e.watch.stop = make(chan struct{})
	e.watch.done.Go(func() {
		ticker := time.NewTicker(probeEvery)
		defer ticker.Stop()
		for {
			select {
			case <-e.watch.stop:
				return
			case <-ticker.C:
			}
			for _, l := range e.loops {
				l.look()
				l.spare.refill()
				l.reattacher.spare.refill()
			}
		}
	})
}

func (e *Engine) stopWatch() {
	close(e.watch.stop)
	e.watch.done.Wait()
}

// look sends a probe, if the last one is back, and else sees how late it is. A loop without connections is not asked.
func (l *Loop) look() {
	p, now := &l.probe, l.engine.clock.now()
	if p.posted.Load() == 0 {
		if p.slow {
			p.slow = false
			l.engine.cfg.Logger.Info("loop: the event loop is in time again")
		}
		if l.load.Load() == 0 || !l.opened() {
			p.took.Store(0)
			return
		}
		p.posted.Store(int64(now))
		l.execute(func() {
			p.took.Store(int64(l.engine.clock.now() - now))
			p.posted.Store(0)
		})
		return
	}
	if late := p.latency(now); late >= slowAfter && !p.slow {
		p.slow = true
		args := []any{"late", late}
		if addr, ok := l.inCallback(); ok {
			args = append(args, "addr", addr)
		}
		l.engine.cfg.Logger.Warn("loop: an event loop is held up: a callback that takes long, or too much to do", args...)
		l.slow.Add(1)
	}
}

// opened reports whether there was a connection.
func (l *Loop) opened() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first != nil
}

// inCallback is the peer of the connection whose callback is running, if one is.
func (l *Loop) inCallback() (peer netip.AddrPort, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := l.first; c != nil; c = c.next {
		if c.corked.Load() && c.State() == link.Open {
			return c.remote, true
		}
	}
	return peer, false
}
