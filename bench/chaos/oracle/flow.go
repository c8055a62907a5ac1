// Package oracle knows what must have arrived, and which events must have been told, whatever happened on the way.
package oracle

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"gridstream/driver"
)

// A packet is its connection's key (8 bytes), its direction (1 byte), its number (4 bytes), and a body that follows from the three.
const header = 13

// Direction says which way a packet goes.
type Direction byte

const (
	// Up is from the client to the server.
	Up Direction = iota
	// Down is the other way.
	Down
)

// Append appends the packet number of a connection, with a body of size bytes.
func Append(dst []byte, key uint64, d Direction, number, size int) []byte {
	dst = binary.BigEndian.AppendUint64(dst, key)
	dst = append(dst, byte(d))
	dst = binary.BigEndian.AppendUint32(dst, uint32(number))
	for i := range size {
		dst = append(dst, body(key, d, number, i))
	}
	return dst
}

// body does not repeat itself every 256 bytes: a piece that is lost, or comes twice, shows.
func body(key uint64, d Direction, number, i int) byte {
	return byte(int(key)*131 + int(d)*89 + number*7 + i ^ (i>>8)*37)
}

// Key is the connection that a packet says it is of.
func Key(packet []byte) (uint64, bool) {
	if len(packet) < header {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet), true
}

// Flow is one direction of one connection. Any goroutine; packets are given to Take in the order in which they arrive.
type Flow struct {
	// Immutable.
	key       uint64
	direction Direction

	// Guarded by mu.
	mu       sync.Mutex
	sent     int // taken by Send, whole
	received int
	err      error // the first packet that is not the next
}

// NewFlow makes the flow of a connection.
func NewFlow(key uint64, d Direction) *Flow { return &Flow{key: key, direction: d} }

// Send sends packets until there are count, or one is not taken. One goroutine at a time.
func (f *Flow) Send(ctx context.Context, c driver.Conn, count int) error {
	var buf []byte
	for n := f.Sent(); n < count; n++ {
		buf = Append(buf[:0], f.key, f.direction, n, size(n))
		// Counted before it is on its way: it may arrive before SendContext returns.
		f.count(+1)
		if err := c.SendContext(ctx, buf); err != nil {
			f.count(-1)
			return err
		}
	}
	return nil
}

// size is that of a game's packets, and now and then a large one.
func size(number int) int {
	if number%97 == 50 {
		return 3000
	}
	return number * 13 % 61
}

// Whole is how many of a flow's packets are whole in its first bytes, with overhead bytes of framing each.
func Whole(bytes int64, overhead int) (packets int) {
	for {
		if bytes -= int64(overhead + header + size(packets)); bytes < 0 {
			return packets
		}
		packets++
	}
}

func (f *Flow) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent += n
}

// Take looks that packet is the next.
func (f *Flow) Take(packet []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	if f.err = f.checkLocked(packet); f.err == nil {
		f.received++
	}
}

func (f *Flow) checkLocked(packet []byte) error {
	key, ok := Key(packet)
	if !ok || key != f.key || packet[8] != byte(f.direction) {
		return fmt.Errorf("not of this connection: %d bytes, % x…", len(packet), packet[:min(len(packet), header)])
	}
	if n := int(binary.BigEndian.Uint32(packet[9:])); n != f.received {
		return fmt.Errorf("packet %d, want %d", n, f.received)
	}
	for i, b := range packet[header:] {
		if b != body(f.key, f.direction, f.received, i) {
			return fmt.Errorf("packet %d: byte %d of the body is wrong", f.received, i)
		}
	}
	if want := size(f.received); len(packet)-header != want {
		return fmt.Errorf("packet %d has a body of %d bytes, want %d", f.received, len(packet)-header, want)
	}
	return nil
}

// Sent is how many packets Send took.
func (f *Flow) Sent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent
}

// Received is how many arrived.
func (f *Flow) Received() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received
}

// Prefix is an error unless what arrived is a prefix of what was sent.
func (f *Flow) Prefix() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.received > f.sent {
		return fmt.Errorf("%d packets arrived, %d were sent", f.received, f.sent)
	}
	return f.err
}

// Complete is an error unless all arrived that was sent.
func (f *Flow) Complete() error {
	if err := f.Prefix(); err != nil {
		return err
	}
	if received, sent := f.Received(), f.Sent(); received != sent {
		return fmt.Errorf("%d packets arrived, %d were sent", received, sent)
	}
	return nil
}
