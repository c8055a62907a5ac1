package driver

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// security is what a SecureStream has more than a Stream: the configurations, and the workers that do the handshakes' steps. A slow
// client holds no worker: a step is only due when a record of its is there.
type security struct {
	core *core

	// Atomic: written by InitializeSecurity and ReloadSecurity.
	configs atomic.Pointer[tlsConfigs]

	workers sync.WaitGroup

	// Guarded by mu.
	mu      sync.Mutex
	work    sync.Cond // jobs or stopped changed
	jobs    []*conn   // in order; each at most once, and holds its connection's slot until it is taken, so that MaxConnections bounds them
	started bool      // the workers are there
	stopped bool
	ending  map[*conn]struct{} // their link has ended, and the last step is done: the loop is asked to do the rest
}

func newSecurity(d *core) *security {
	s := &security{core: d}
	s.work.L = &s.mu
	return s
}

// stop ends the workers. Every link has ended: what is left are those whose end waits for a step.
func (s *security) stop() {
	s.mu.Lock()
	s.stopped = true
	jobs := s.jobs
	s.jobs = nil
	s.mu.Unlock()
	s.work.Broadcast()
	s.workers.Wait()
	for _, c := range jobs {
		c.release()
		c.abortSession()
		c.stepDone()
	}
	for _, c := range s.left() { // the loops are gone
		s.end(c)
	}
}

func (s *security) left() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.ending))
}

// end is the end of a connection that stepEnds told of; once. The loop, or who closes the driver.
func (s *security) end(c *conn) {
	s.mu.Lock()
	_, due := s.ending[c]
	delete(s.ending, c)
	s.mu.Unlock()
	if due {
		c.establishLate()
		c.close(c.secure.cause)
	}
}

// submit has a worker do a step of c's handshake. Any goroutine.
func (s *security) submit(c *conn) {
	s.mu.Lock()
	if !s.started {
		s.started = true
		for range s.core.cfg.HandshakeWorkers {
			s.workers.Go(s.run)
		}
	}
	c.secure.steps++
	c.hold()
	s.jobs = append(s.jobs, c)
	s.mu.Unlock()
	s.work.Signal()
}

// deferEnd leaves the end of c's link to the step that is due or under way; false where there is none.
func (s *security) deferEnd(c *conn, cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.secure.steps == 0 {
		return false
	}
	c.secure.cause = cause
	return true
}

// stepEnds counts a step that is done, and reports whether c's end was left to it.
func (s *security) stepEnds(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.secure.steps--; c.secure.steps > 0 || c.secure.cause == nil {
		return false
	}
	if s.ending == nil {
		s.ending = make(map[*conn]struct{})
	}
	s.ending[c] = struct{}{}
	return true
}

func (s *security) run() {
	for {
		c := s.next()
		if c == nil {
			return
		}
		c.release() // its job's hold
		c.step()
		if s.hasJobs() {
			c.secure.link.KeepAwake()
		}
		runtime.Gosched() // a step is milliseconds of computing: let the event loops have their turn
	}
}

func (s *security) hasJobs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs) > 0
}

// next blocks until there is a job; nil when the workers are stopped.
func (s *security) next() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.jobs) == 0 && !s.stopped {
		s.work.Wait()
	}
	if s.stopped {
		return nil
	}
	c := s.jobs[0]
	s.jobs[0] = nil
	s.jobs = s.jobs[1:]
	return c
}
