package tlsadapter

import "encoding/binary"

// The TLS record layer, as far as it is visible without keys (RFC 8446, section 5.1; RFC 5246, section 6.2.1):
//
//	 0      1       2       3        4        5
//	+------+-------+-------+--------+--------+- - - - - - - -
//	| type | version: 3, x | length (2, BE)  | length bytes …
//	+------+-------+-------+--------+--------+- - - - - - - -
const (
	recordHeaderLen = 5
	maxPlaintext    = 16384               // most plaintext in one record
	maxCiphertext   = maxPlaintext + 2048 // most that a length may say (TLS 1.2; 1.3 allows 256 more than maxPlaintext)

	typeChangeCipherSpec = 20
	typeHandshake        = 22
	typeApplicationData  = 23
)

// bodyLen is the length field of a header.
func bodyLen(header []byte) int { return int(binary.BigEndian.Uint16(header[3:recordHeaderLen])) }

// plausible reports whether header can start a record. What cannot is handed to crypto/tls without waiting for
// the length it seems to announce: an HTTP request would otherwise wait for 8 KiB that never come.
func plausible(header []byte) bool {
	return header[0] >= typeChangeCipherSpec && header[0] <= typeApplicationData &&
		header[1] == 3 && bodyLen(header) <= maxCiphertext
}

// wholeRecord reports whether src starts with something that crypto/tls can use: a complete record, or a header
// that it will refuse.
func wholeRecord(src []byte) bool {
	if len(src) < recordHeaderLen {
		return false
	}
	return !plausible(src) || len(src) >= recordHeaderLen+bodyLen(src)
}

// cursor follows record boundaries through the ciphertext that is handed to crypto/tls. It never hands out a byte
// beyond the record that crypto/tls is reading, and a body that does not fit the offered space only after its header
// was taken alone: crypto/tls then grows its input buffer, which never shrinks, to that record and no further.
type cursor struct {
	length  [2]byte // the length field of the header, or of the last one
	header  uint8   // bytes of the header handed out; recordHeaderLen: in the body
	pending uint16  // bytes of the body still to hand out
}

// midRecord reports whether part of a record has been handed out.
func (c *cursor) midRecord() bool { return c.header != 0 }

// cost is what the record that was last handed out to its end costs if it has no plaintext; see maxUseless.
func (c *cursor) cost() int32 {
	return max(uselessCost, recordHeaderLen+int32(binary.BigEndian.Uint16(c.length[:])))
}

// take copies from src to p what crypto/tls should get next and returns how much that is; 0 only if either is empty.
func (c *cursor) take(p, src []byte) (n int) {
	for c.header < recordHeaderLen {
		if n == len(p) || n == len(src) {
			return n
		}
		p[n] = src[n]
		if c.header >= 3 {
			c.length[c.header-3] = src[n]
		}
		c.header++
		n++
		if c.header == recordHeaderLen {
			c.pending = binary.BigEndian.Uint16(c.length[:])
			if int(c.pending) > len(p)-n {
				return n // let crypto/tls make room first
			}
		}
	}
	m := copy(p[n:], src[n:min(len(src), n+int(c.pending))])
	c.pending -= uint16(m)
	if c.pending == 0 {
		c.header = 0
	}
	return n + m
}

// pieceLen returns the length of the pieces in which an unprotected handshake record of n bytes is handed out when
// crypto/tls has offered room bytes: a power of two of equal pieces that fit. Equal, because crypto/tls collects them
// in a buffer that doubles: it then ends at n instead of at up to 2n.
func pieceLen(n, room int) int {
	pieces := 1
	for (n+pieces-1)/pieces+recordHeaderLen > room {
		pieces *= 2
	}
	return (n + pieces - 1) / pieces
}

// splitRecord copies the first piece bytes of record's body to p as a record of their own and makes the rest of record,
// from the returned offset on, one too (its header overwrites bytes that have been copied). piece must be at least
// recordHeaderLen. Only an unprotected handshake record can be split: record boundaries within a handshake message
// have no meaning and are not authenticated (RFC 8446, section 5.1).
func splitRecord(p, record []byte, piece int) (n, off int) {
	rest := bodyLen(record) - piece
	n = copy(p, record[:recordHeaderLen+piece])
	binary.BigEndian.PutUint16(p[3:], uint16(piece))
	copy(record[piece:], p[:3])
	binary.BigEndian.PutUint16(record[piece+3:], uint16(rest))
	return n, piece
}
