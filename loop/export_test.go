package loop

import (
	"time"

	"gridstream/loop/link"
)

// Wheel gives the tests the timing wheel.
type Wheel struct{ w wheel }

func NewWheel() *Wheel {
	w := new(Wheel)
	w.w.init()
	return w
}

func (w *Wheel) Schedule(c *Conn, now, d time.Duration) bool { return w.w.schedule(c, now, d) }
func (w *Wheel) Remove(c *Conn)                              { w.w.remove(c) }
func (w *Wheel) Advance(now time.Duration) []*Conn           { return w.w.advance(now) }
func (w *Wheel) Armed() int64                                { return w.w.armed.Load() }

const Tick = tick

// Parked reports whether gnet has let go of an open connection.
func Parked(l link.Link) bool {
	c := l.(*Conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gc == nil && c.fd >= 0 && !c.attaching
}

// Spare gives the tests the spare descriptors.
type Spare struct{ s spare }

func (s *Spare) Refill()                     { s.s.refill() }
func (s *Spare) Replace(fd int) (int, error) { return s.s.replace(fd) }
func (s *Spare) Lend(f func() error) error   { return s.s.lend(f) }
func (s *Spare) Complete() bool              { return s.s.complete() }
func (s *Spare) Close()                      { s.s.close() }

func (s *spare) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held) == spareDescriptors
}

// SparesComplete reports whether no spare descriptor of a loop is lent or lost.
func (e *Engine) SparesComplete() bool {
	for _, l := range e.loops {
		if !l.spare.complete() || !l.reattacher.spare.complete() {
			return false
		}
	}
	return true
}

// SparesLent reports whether something is done with a loop's spare descriptors.
func (e *Engine) SparesLent() bool {
	for _, l := range e.loops {
		for _, s := range []*spare{&l.spare, &l.reattacher.spare} {
			s.mu.Lock()
			lent := s.lent
			s.mu.Unlock()
			if lent {
				return true
			}
		}
	}
	return false
}

// TakeSpares takes all spare descriptors, which are the caller's to close.
func (e *Engine) TakeSpares() (fds []int) {
	for _, l := range e.loops {
		for _, s := range []*spare{&l.spare, &l.reattacher.spare} {
			s.mu.Lock()
			fds = append(fds, s.held...)
			s.held = nil
			s.mu.Unlock()
		}
	}
	return fds
}

const UnparkedMost = unparkedMost
