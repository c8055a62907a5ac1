package peers

import "encoding/binary"

// whole is how many bytes of b are whole frames: a length of two bytes, big-endian, and so many bytes.
func whole(b []byte) (n int) {
	for len(b)-n >= 2 {
		end := n + 2 + int(binary.BigEndian.Uint16(b[n:]))
		if end > len(b) {
			break
		}
		n = end
	}
	return n
}

func frame(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packet)), uint16(len(packet))), packet...)
}
