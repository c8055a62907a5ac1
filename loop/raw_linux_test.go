package loop_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/loop/link"
)

// processorTime is what this process has used.
func processorTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// sequence is where a connection is: the next byte that it sends, and the next that it expects.
func sequence(t *testing.T, nc *net.TCPConn) (next, expected uint32) {
	const repair, repairQueue, queueSeq, receiveQueue, sendQueue = 19, 20, 21, 1, 2
	rc, err := nc.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		set := func(option, value int) {
			require.NoError(t, syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, option, value))
		}
		get := func() uint32 {
			v, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, queueSeq)
			require.NoError(t, err)
			return uint32(v)
		}
		set(repair, 1)
		set(repairQueue, sendQueue)
		next = get()
		set(repairQueue, receiveQueue)
		expected = get()
		set(repair, -1) // and no probe of the window
	}))
	return next, expected
}

// checksum is that of the Internet protocols, of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// hostUnreachable is what a router answers that has no route for a segment.
func hostUnreachable(src, dst *net.TCPAddr, seq uint32) []byte {
	const unreachable, host, header = 3, 1, 8
	b := make([]byte, header+20+8)
	b[0], b[1] = unreachable, host
	ip := b[header:]
	ip[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(ip[2:], 40)
	ip[8], ip[9] = 64, syscall.IPPROTO_TCP
	copy(ip[12:], src.IP.To4())
	copy(ip[16:], dst.IP.To4())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	binary.BigEndian.PutUint16(ip[20:], uint16(src.Port))
	binary.BigEndian.PutUint16(ip[22:], uint16(dst.Port))
	binary.BigEndian.PutUint32(ip[24:], seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// tcpState is the state of a connection, as Linux numbers them.
func tcpState(t *testing.T, nc *net.TCPConn) (state byte) {
	t.Helper()
	rc, err := nc.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) // its first bytes
		require.NoError(t, err)
		state = byte(n)
	}))
	return state
}

// TestUnreachableForAMoment: what a router said before the end was read is not the end's reason, and what is queued is sent.
func TestUnreachableForAMoment(t *testing.T) {
	raw, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	if err != nil {
		t.Skip("it takes a raw socket: ", err)
	}
	defer syscall.Close(raw)
	for _, size := range []int{0, 32 << 20} {
		e := newEngine(t, link.Config{Loops: 1})
		entered, leave := make(chan struct{}), make(chan struct{})
		_, other := pair(t, e, func(*end, []byte) { close(entered); <-leave })
		c, peer := pair(t, e, nil)
		if size > 0 {
			require.NoError(t, c.Write(nil, make([]byte, size), size))
		}
		_, expected := sequence(t, peer)
		_, err = other.Write([]byte("x")) // the loop is late
		require.NoError(t, err)
		<-entered
		require.NoError(t, peer.CloseWrite())
		const finWait2 = 5
		eventually(t, "that the other end has it", func() bool { return tcpState(t, peer) == finWait2 })
		server, client := peer.RemoteAddr().(*net.TCPAddr), peer.LocalAddr().(*net.TCPAddr)
		require.NoError(t, syscall.Sendto(raw, hostUnreachable(server, client, expected), 0, &syscall.SockaddrInet4{Addr: [4]byte(server.IP.To4())}))
		close(leave)
		n, err := io.Copy(io.Discard, peer)
		require.NoError(t, err)
		require.EqualValues(t, size, n)
		require.ErrorIs(t, c.waitClosed(t), io.EOF)
	}
}

// urgentSegment is a TCP segment with an urgent byte.
func urgentSegment(src, dst *net.TCPAddr, seq, ack uint32) []byte {
	seg := make([]byte, 21)
	binary.BigEndian.PutUint16(seg[0:], uint16(src.Port))
	binary.BigEndian.PutUint16(seg[2:], uint16(dst.Port))
	binary.BigEndian.PutUint32(seg[4:], seq)
	binary.BigEndian.PutUint32(seg[8:], ack)
	seg[12], seg[13] = 5<<4, 0x38 // URG ACK PSH
	binary.BigEndian.PutUint16(seg[14:], 65535)
	binary.BigEndian.PutUint16(seg[18:], 1)
	seg[20] = 'x'
	covered := slices.Concat(src.IP.To4(), dst.IP.To4(), []byte{0, syscall.IPPROTO_TCP, 0, byte(len(seg))}, seg, []byte{0})
	binary.BigEndian.PutUint16(seg[16:], checksum(covered))
	return seg
}

// TestUrgentByteBehindAGap: there is nothing to be read, and the loop must not look for it without end.
func TestUrgentByteBehindAGap(t *testing.T) {
	raw, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_TCP)
	if err != nil {
		t.Skip("it takes a raw socket: ", err)
	}
	defer syscall.Close(raw)
	e := newEngine(t, link.Config{Loops: 1})
	c, peer := pair(t, e, nil)
	seq, ack := sequence(t, peer)
	src, dst := peer.LocalAddr().(*net.TCPAddr), peer.RemoteAddr().(*net.TCPAddr)
	const gap = 100
	require.NoError(t, syscall.Sendto(raw, urgentSegment(src, dst, seq+gap, ack), 0, &syscall.SockaddrInet4{Addr: [4]byte(dst.IP.To4())}))
	const window = 300 * time.Millisecond
	before := processorTime()
	timer := time.NewTimer(window)
	<-timer.C
	require.Less(t, processorTime()-before, window/3)
	require.Equal(t, link.Open, c.State())
	_, err = peer.Write(make([]byte, gap)) // the gap closes
	require.NoError(t, err)
	eventually(t, "what is not urgent", func() bool { return c.size() >= gap })
}
