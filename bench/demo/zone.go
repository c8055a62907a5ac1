package main

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"gridstream/driver"
)

// seat is a player on the server.
type seat struct {
	// Immutable.
	player uint32
	conn   driver.Conn
	zone   *zone

	// Atomic: written by the connection's event loop.
	place atomic.Uint64 // position: seq, x, y
	moves atomic.Uint32 // applied
}

func (s *seat) put(p position) {
	s.place.Store(uint64(p.seq)<<32 | uint64(p.x)<<16 | uint64(p.y))
}

func (s *seat) get() position {
	v := s.place.Load()
	return position{seq: uint32(v >> 32), x: uint16(v >> 16), y: uint16(v)}
}

// zone is a set of players that see each other.
type zone struct {
	// Immutable.
	number int
	group  *driver.Group

	// Guarded by mu, which is not held while anything is sent.
	mu      sync.Mutex
	seats   []*seat
	leaving []*seat

	// Owned by the goroutine that ticks.
	tick  uint32
	state []byte
}

func newZone(number int) *zone {
	return &zone{number: number, group: driver.NewGroup()}
}

func (z *zone) join(s *seat) {
	if !z.group.Add(s.conn) {
		return // it has disconnected
	}
	z.mu.Lock()
	z.seats = append(z.seats, s)
	z.mu.Unlock()
}

// leave has the next tick say bye, so that no state follows it.
func (z *zone) leave(s *seat) {
	z.mu.Lock()
	z.leaving = append(z.leaving, s)
	z.mu.Unlock()
}

// drop forgets a player that disconnected.
func (z *zone) drop(s *seat) {
	z.mu.Lock()
	if i := slices.Index(z.seats, s); i >= 0 {
		z.seats = slices.Delete(z.seats, i, i+1)
	}
	z.mu.Unlock()
}

// broadcast sends the zone's state to its players, and bye to those who leave. It returns to how many the state went.
func (z *zone) broadcast() int {
	z.state = binary.BigEndian.AppendUint32(append(z.state[:0], kindState), z.tick)
	z.mu.Lock()
	for _, s := range z.seats {
		z.state = appendPosition(binary.BigEndian.AppendUint32(z.state, s.player), s.get())
	}
	leaving := z.leaving
	z.leaving = nil
	z.mu.Unlock()

	n := z.group.Broadcast(z.state)
	z.tick++
	for _, s := range leaving {
		z.drop(s)
		z.group.Remove(s.conn)
		_ = s.conn.Send(bye(s.moves.Load())) // fails only where the player is gone
	}
	return n
}
