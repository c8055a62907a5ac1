//go:build !poll_opt

package loop_test

import (
	"encoding/binary"
	"net"
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
	sum := uint32(syscall.IPPROTO_TCP + len(seg))
	for _, ip := range []net.IP{src.IP.To4(), dst.IP.To4()} {
		sum += uint32(binary.BigEndian.Uint16(ip)) + uint32(binary.BigEndian.Uint16(ip[2:]))
	}
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(seg[i:]))
	}
	sum += uint32(seg[20]) << 8
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(seg[16:], ^uint16(sum))
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
