package main

import (
	"encoding/binary"
	"time"
)

// link is a player's connection.
type link interface {
	Send(packet []byte) error
	Close(reason error)
}

// player is a simulated player.
type player struct {
	// Immutable.
	number uint32
	fleet  *fleet

	// Owned by the connection's goroutine or event loop until it is in; then read-only.
	link link

	tries int // owned by the dialer

	// Owned by the goroutine that moves the players.
	seq  uint32
	move []byte

	// Owned by the connection's goroutine or event loop.
	in, out  bool   // has had its welcome, its bye
	nextTick uint32 // of its zone
	ticking  bool   // has had a state
}

// connected logs in.
func (p *player) connected(l link) {
	p.link = l
	if err := l.Send(login(p.number)); err != nil {
		l.Close(err)
	}
}

// disconnected is the end, also of an attempt that failed. reason is nil after a bye.
func (p *player) disconnected(reason error) {
	switch f := p.fleet; {
	case p.out:
		f.left.Add(1)
	case p.in:
		f.lost(&f.dropped, p.number, reason)
	default:
		f.lost(&f.failed, p.number, reason)
		<-f.connects
	}
	p.fleet.wake()
}

// onPacket runs on the connection's goroutine or event loop.
func (p *player) onPacket(packet []byte) {
	f := p.fleet
	switch packet[0] {
	case kindWelcome:
		p.in = true
		f.joined.Add(1)
		<-f.connects
		f.wake()
	case kindPong:
		f.roundTrips.record(f.clock() - time.Duration(binary.BigEndian.Uint64(packet[1:])))
	case kindState:
		tick := binary.BigEndian.Uint32(packet[1:])
		if p.ticking && tick != p.nextTick {
			f.stateGaps.Add(1)
		}
		p.ticking, p.nextTick = true, tick+1
		f.states.Add(1)
	case kindBye:
		f.acknowledged.Add(uint64(binary.BigEndian.Uint32(packet[1:])))
		p.out = true
		p.link.Close(nil)
	}
}

// step moves the player; with a stamp where the round trip is to be measured.
func (p *player) step(stamped bool) {
	f := p.fleet
	walk := position{seq: p.seq + 1, x: uint16(p.number + p.seq), y: uint16(p.number - p.seq)}
	p.move = appendPosition(append(p.move[:0], kindMove), walk)
	if stamped {
		p.move = binary.BigEndian.AppendUint64(p.move, uint64(f.clock()))
	}
	if err := p.link.Send(p.move); err != nil {
		f.unsent.Add(1)
		return
	}
	p.seq++
	f.moves.Add(1)
}
