package driver

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
