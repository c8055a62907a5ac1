package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A client's packet: when it was sent (8 bytes, nanoseconds), the connection's number (4), its place in the order (4), filler.
// A server's packet: its sender's number (4), its place in the order for that sender and connection (4), filler.

// frame is a frame with room for a packet of size bytes, and the filler in place.
func frame(size int) []byte {
	f := binary.BigEndian.AppendUint16(make([]byte, 0, 2+size), uint16(size))
	for i := range size {
		f = append(f, byte(i))
	}
	return f
}

func stamp(packet []byte, at time.Duration, conn, seq uint32) {
	binary.BigEndian.PutUint64(packet, uint64(at))
	binary.BigEndian.PutUint32(packet[8:], conn)
	binary.BigEndian.PutUint32(packet[12:], seq)
}

// checkEcho checks an answer against like, the frame of any packet of the load, and returns when it was sent.
func checkEcho(packet, like []byte, conn, seq uint32) (time.Duration, error) {
	switch {
	case len(packet) != len(like)-2:
		return 0, fmt.Errorf("an answer of %d bytes to a packet of %d", len(packet), len(like)-2)
	case binary.BigEndian.Uint32(packet[8:]) != conn:
		return 0, fmt.Errorf("the answer to connection %d", binary.BigEndian.Uint32(packet[8:]))
	case binary.BigEndian.Uint32(packet[12:]) != seq:
		return 0, fmt.Errorf("answer %d where %d is due", binary.BigEndian.Uint32(packet[12:]), seq)
	case !bytes.Equal(packet[MinSize:], like[2+MinSize:]):
		return 0, errors.New("another content")
	}
	return time.Duration(binary.BigEndian.Uint64(packet)), nil
}

// Fill makes packet the seq-th that a sender of the server sends on a connection, which Sink checks.
func Fill(packet []byte, sender, seq int) {
	for i := range packet {
		packet[i] = byte(i)
	}
	binary.BigEndian.PutUint32(packet, uint32(sender))
	binary.BigEndian.PutUint32(packet[4:], uint32(seq))
}

// checkSent checks what Fill made. next has the place in the order that is due, for each sender.
func checkSent(packet, like []byte, next []uint32) error {
	if len(packet) != len(like)-2 {
		return fmt.Errorf("%d bytes, not %d", len(packet), len(like)-2)
	}
	sender, seq := binary.BigEndian.Uint32(packet), binary.BigEndian.Uint32(packet[4:])
	switch {
	case sender >= uint32(len(next)):
		return fmt.Errorf("sender %d of %d", sender, len(next))
	case seq != next[sender]:
		return fmt.Errorf("packet %d of sender %d where %d is due", seq, sender, next[sender])
	case !bytes.Equal(packet[8:], like[2+8:]):
		return errors.New("another content")
	}
	next[sender]++
	return nil
}
