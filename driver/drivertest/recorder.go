package drivertest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"gridstream/driver"
)

// recorder keeps the events of a driver. Any goroutine.
type recorder struct {
	// Guarded by mu.
	mu     sync.Mutex
	events []recorded
	closed bool // the driver's Close has returned
	late   int  // events since then
}

type recorded struct {
	driver.Event
	up bool // Established
}

// OnConnectionEstablished implements driver.Subscriber.
func (r *recorder) OnConnectionEstablished(ev driver.Event) { r.add(recorded{ev, true}) }

// OnConnectionDisconnected implements driver.Subscriber.
func (r *recorder) OnConnectionDisconnected(ev driver.Event) { r.add(recorded{ev, false}) }

func (r *recorder) add(ev recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, ev)
	if r.closed {
		r.late++
	}
}

// all is a copy of what was reported so far.
func (r *recorder) all() []recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]recorded(nil), r.events...)
}

// String is for the log of a property that failed.
func (r *recorder) String() string {
	all := r.all()
	var b strings.Builder
	for i, ev := range all {
		if i == 10 {
			fmt.Fprintf(&b, " and %d more", len(all)-i)
			break
		}
		if ev.up {
			fmt.Fprintf(&b, " Established(%v)", ev.Address)
		} else {
			fmt.Fprintf(&b, " Disconnected(%v: %v)", ev.Address, ev.Reason)
		}
	}
	return b.String()
}

// counts are the numbers of Established and Disconnected events.
func (r *recorder) counts() (up, down int) {
	for _, ev := range r.all() {
		if ev.up {
			up++
		} else {
			down++
		}
	}
	return up, down
}

// conns are those of the Established events, in order.
func (r *recorder) conns() (all []driver.Conn) {
	for _, ev := range r.all() {
		if ev.up {
			all = append(all, ev.Conn)
		}
	}
	return all
}

func (r *recorder) established(c driver.Conn) bool {
	for _, ev := range r.all() {
		if ev.up && ev.Conn != nil && ev.Conn.ID() == c.ID() {
			return true
		}
	}
	return false
}

// end is the Disconnected event of c.
func (r *recorder) end(c driver.Conn) (driver.Event, bool) {
	for _, ev := range r.all() {
		if !ev.up && ev.Conn != nil && ev.Conn.ID() == c.ID() {
			return ev.Event, true
		}
	}
	return driver.Event{}, false
}

// failures are the Disconnected events of ConnectTo(addr) that failed.
func (r *recorder) failures(addr netip.AddrPort) (all []driver.Event) {
	for _, ev := range r.all() {
		if !ev.up && ev.Address == addr && (ev.Conn == nil || !r.established(ev.Conn)) {
			all = append(all, ev.Event)
		}
	}
	return all
}

// awaitEnd waits for the Disconnected of c, and returns its reason.
func (n *node) awaitEnd(c driver.Conn) error {
	n.s.Helper()
	var ev driver.Event
	n.s.await("Disconnected of the connection to "+c.RemoteAddr().String(), func() (ok bool) {
		n.Update()
		ev, ok = n.events.end(c)
		return ok
	})
	if ev.Address != c.RemoteAddr() {
		n.s.Errorf("Disconnected of %v has Address %v", c.RemoteAddr(), ev.Address)
	}
	return ev.Reason
}

// awaitFailure waits for the single Disconnected of a ConnectTo that failed, and returns its reason.
func (n *node) awaitFailure(addr netip.AddrPort) error {
	n.s.Helper()
	var ev driver.Event
	n.s.await("Disconnected of a ConnectTo", func() bool {
		n.Update()
		all := n.events.failures(addr)
		if len(all) > 0 {
			ev = all[0]
		}
		return len(all) > 0
	})
	return ev.Reason
}

// check looks that the events of a closed driver make sense.
func (r *recorder) check(s *suite) {
	s.Helper()
	type seen struct{ up, down int }
	conns := make(map[uint64]*seen)
	for _, ev := range r.all() {
		if ev.Conn == nil {
			if ev.up || ev.Reason == nil || !ev.Address.IsValid() {
				s.Errorf("an event without a Conn that is no failed ConnectTo: %+v", ev)
			}
			continue
		}
		c := conns[ev.Conn.ID()]
		if c == nil {
			c = &seen{}
			conns[ev.Conn.ID()] = c
		}
		if ev.Address != ev.Conn.RemoteAddr() {
			s.Errorf("the event of %v has Address %v", ev.Conn.RemoteAddr(), ev.Address)
		}
		switch {
		case ev.up:
			if c.up++; c.down > 0 {
				s.Errorf("%v: Established after Disconnected", ev.Address)
			}
			if ev.Reason != nil {
				s.Errorf("%v: Established with Reason %v", ev.Address, ev.Reason)
			}
		default:
			if c.down++; c.up == 0 && ev.Conn.Inbound() {
				s.Errorf("%v: Disconnected without Established", ev.Address)
			}
			if ev.Reason == nil {
				s.Errorf("%v: Disconnected without a Reason", ev.Address)
			}
		}
	}
	for id, c := range conns {
		if c.up > 1 || c.down != 1 {
			s.Errorf("connection %d: Established %d times, Disconnected %d times when Close had returned", id, c.up, c.down)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.late > 0 {
		s.Errorf("%d events after Close had returned", r.late)
	}
}

// ends counts the ends of established connections by their reasons.
func (r *recorder) ends() (n driver.Ends) {
	counters := map[error]*uint64{
		driver.ErrPeerClosed:   &n.PeerClosed,
		driver.ErrDisconnected: &n.Disconnected,
		driver.ErrShutdown:     &n.Shutdown,
		driver.ErrHijacked:     &n.Hijacked,
		driver.ErrIdleTimeout:  &n.IdleTimeout,
		driver.ErrLoginTimeout: &n.LoginTimeout,
		driver.ErrStallTimeout: &n.StallTimeout,
		driver.ErrProtocol:     &n.Protocol,
		driver.ErrRateLimited:  &n.RateLimited,
		driver.ErrSlowConsumer: &n.SlowConsumer,
		driver.ErrPanic:        &n.Panic,
	}
	established := make(map[uint64]bool)
	for _, ev := range r.all() {
		switch {
		case ev.up:
			established[ev.Conn.ID()] = true
			continue
		case ev.Conn == nil || !established[ev.Conn.ID()]:
			continue
		}
		counter := &n.Disconnected
		if failed := (*driver.Error)(nil); errors.As(ev.Reason, &failed) {
			counter = &n.Failed
		}
		for reason, c := range counters {
			if errors.Is(ev.Reason, reason) {
				counter = c
			}
		}
		*counter++
	}
	return n
}
