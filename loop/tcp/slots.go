package tcp

import "sync"

// Slots counts what may exist at once, e.g. connections. Any goroutine.
type Slots struct {
	// Immutable.
	max  int
	free chan struct{} // holds one: a slot was given back when none was left

	// Guarded by mu.
	mu   sync.Mutex
	used int
}

// NewSlots makes max of them.
func NewSlots(max int) *Slots { return &Slots{max: max, free: make(chan struct{}, 1)} }

// Max is how many there are.
func (s *Slots) Max() int { return s.max }

// TryAcquire takes one, if there is one.
func (s *Slots) TryAcquire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= s.max {
		return false
	}
	s.used++
	return true
}

// Release gives one back.
func (s *Slots) Release() {
	s.mu.Lock()
	s.used--
	s.mu.Unlock()
	s.notify()
}

// notify has who waits look again.
func (s *Slots) notify() {
	select {
	case s.free <- struct{}{}:
	default:
	}
}

// Acquire takes one, and blocks until there is one; false when stop is closed first. One goroutine at a time.
func (s *Slots) Acquire(stop <-chan struct{}) bool {
	for !s.TryAcquire() {
		if !s.wait(stop) {
			return false
		}
	}
	return true
}

// WaitFree blocks until there is one, without taking it; false when stop is closed first. It calls waits if it has to. One goroutine at a
// time.
func (s *Slots) WaitFree(stop <-chan struct{}, waits func()) bool {
	for first := true; ; first = false {
		s.mu.Lock()
		free := s.used < s.max
		s.mu.Unlock()
		if free {
			return true
		}
		if first {
			waits()
		}
		if !s.wait(stop) {
			return false
		}
	}
}

func (s *Slots) wait(stop <-chan struct{}) bool {
	select {
	case <-s.free:
		return true
	case <-stop:
		return false
	}
}
