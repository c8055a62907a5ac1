package loop

import "time"

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
