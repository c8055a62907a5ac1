package driver

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Framing cuts a stream of bytes into packets. Its methods may be called from any goroutine, do not block, and keep
// nothing. An application may bring its own: see the wire-format document.
type Framing interface {
	// Overhead is the most bytes that framing adds to a packet.
	Overhead() int
	// MaxPacketSize is the largest packet that the format can express.
	MaxPacketSize() int
	// AppendFrame appends the frame of packet to dst, as append does. The packet has 1 to MaxPacketSize bytes.
	AppendFrame(dst, packet []byte) []byte
	// Split finds the first frame of b: its n bytes hold packet, which aliases b. n == 0 with a nil error means that
	// more bytes are needed. A frame that cannot be, or whose packet is larger than maxPacketSize, is an error as
	// soon as the bytes that are there tell; the driver then ends the connection with ErrProtocol. As long as Split
	// asks for more, b may hold up to Overhead plus maxPacketSize bytes, no more.
	Split(b []byte, maxPacketSize int) (packet []byte, n int, err error)
}

// lengthPrefix implements Framing: the packet's length, then the packet. Split and AppendFrame allocate nothing for
// what is legal, as long as dst has room. A length of 0, or over maxPacketSize, is an error that wraps ErrProtocol.
// Being constants, the formats cannot be changed by anybody, and calls of their methods need no indirection.
type lengthPrefix uint8

// The framings that come with the driver; docs/wire-format.md has them byte by byte. They are Framings, and one type,
// so that they can be compared.
const (
	// LengthPrefix16BE is GridMate's wire format, and the default. Packets have 1 to 65535 bytes.
	//
	//	length uint16, big-endian | packet
	//	00 02                     | 68 69
	LengthPrefix16BE lengthPrefix = iota
	// LengthPrefix16LE is for packets of 1 to 65535 bytes.
	//
	//	length uint16, little-endian | packet
	//	02 00                        | 68 69
	LengthPrefix16LE
	// LengthPrefix32BE is for packets of 1 to 2147483647 bytes: no more, so that a length is an int everywhere.
	//
	//	length uint32, big-endian | packet
	//	00 00 00 02               | 68 69
	LengthPrefix32BE
	// LengthPrefix32LE is for packets of 1 to 2147483647 bytes.
	//
	//	length uint32, little-endian | packet
	//	02 00 00 00                  | 68 69
	LengthPrefix32LE
	// Varint is protobuf's delimited format, for packets of 1 to 2147483647 bytes: seven bits of the length in a byte, the
	// lowest first, and the top bit set in every byte but the last. It writes the shortest form. It reads padded
	// ones too (82 00 is 2), as protobuf's parsers do, up to the five bytes that a 32-bit length can need.
	//
	//	length, 1 to 5 bytes | packet
	//	02                   | 68 69
	//	ac 02                | 300 bytes: 0x2c + 0x02<<7
	Varint
)

var _ Framing = LengthPrefix16BE

// String is the constant's name.
func (f lengthPrefix) String() string {
	switch f {
	case LengthPrefix16BE:
		return "LengthPrefix16BE"
	case LengthPrefix16LE:
		return "LengthPrefix16LE"
	case LengthPrefix32BE:
		return "LengthPrefix32BE"
	case LengthPrefix32LE:
		return "LengthPrefix32LE"
	}
	return "Varint"
}

// Overhead implements Framing: the size of the longest length.
func (f lengthPrefix) Overhead() int {
	switch f {
	case LengthPrefix16BE, LengthPrefix16LE:
		return 2
	case LengthPrefix32BE, LengthPrefix32LE:
		return 4
	}
	return maxVarintLength
}

// MaxPacketSize implements Framing.
func (f lengthPrefix) MaxPacketSize() int {
	switch f {
	case LengthPrefix16BE, LengthPrefix16LE:
		return math.MaxUint16
	}
	return math.MaxInt32
}

// AppendFrame implements Framing.
func (f lengthPrefix) AppendFrame(dst, packet []byte) []byte {
	switch size := len(packet); f {
	case LengthPrefix16BE:
		dst = binary.BigEndian.AppendUint16(dst, uint16(size))
	case LengthPrefix16LE:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(size))
	case LengthPrefix32BE:
		dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	case LengthPrefix32LE:
		dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	default:
		dst = binary.AppendUvarint(dst, uint64(size))
	}
	return append(dst, packet...)
}

// Split implements Framing.
func (f lengthPrefix) Split(b []byte, maxPacketSize int) (packet []byte, n int, err error) {
	length, prefix := f.length(b)
	switch {
	case length > uint64(maxPacketSize):
		return nil, 0, errLength(length, prefix, maxPacketSize)
	case prefix == 0:
		return nil, 0, nil
	case length == 0:
		return nil, 0, errLength(length, prefix, maxPacketSize)
	case length > uint64(len(b)-prefix):
		return nil, 0, nil
	}
	n = prefix + int(length)
	return b[prefix:n:n], n, nil
}

// length reads the packet's length from the first bytes of b, prefix in number. prefix == 0 means that some of them
// are missing: they could only add to the length.
func (f lengthPrefix) length(b []byte) (length uint64, prefix int) {
	if f == Varint {
		return varint(b)
	}
	var padded [4]byte
	prefix = f.Overhead()
	if len(b) < prefix {
		copy(padded[:], b)
		b, prefix = padded[:], 0
	}
	switch f {
	case LengthPrefix16BE:
		length = uint64(binary.BigEndian.Uint16(b))
	case LengthPrefix16LE:
		length = uint64(binary.LittleEndian.Uint16(b))
	case LengthPrefix32BE:
		length = uint64(binary.BigEndian.Uint32(b))
	default:
		length = uint64(binary.LittleEndian.Uint32(b))
	}
	return length, prefix
}

const (
	maxVarintLength = 5              // bytes
	endlessVarint   = math.MaxUint64 // what varint makes of one that has more
)

// varint is length for Varint.
func varint(b []byte) (length uint64, prefix int) {
	for i, x := range b[:min(len(b), maxVarintLength)] {
		length |= uint64(x&0x7f) << (7 * i)
		if x < 0x80 {
			return length, i + 1
		}
	}
	if len(b) >= maxVarintLength {
		return endlessVarint, 0
	}
	return length, 0
}

// errLength is the error of a length that cannot be.
func errLength(length uint64, prefix, maxPacketSize int) error {
	switch {
	case length == 0:
		return fmt.Errorf("%w: a packet length of 0", ErrProtocol)
	case length == endlessVarint:
		return fmt.Errorf("%w: a packet length of more than %d bytes", ErrProtocol, maxVarintLength)
	case prefix == 0:
		return fmt.Errorf("%w: a packet length of at least %d, over the maximum of %d", ErrProtocol, length, maxPacketSize)
	}
	return fmt.Errorf("%w: a packet length of %d, over the maximum of %d", ErrProtocol, length, maxPacketSize)
}
