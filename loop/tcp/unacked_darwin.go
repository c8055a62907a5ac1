package tcp

import (
	"math"
	"syscall"
)

// Unacked is how many bytes the kernel has of a socket that the peer has not acknowledged.
func Unacked(fd int) int32 {
	const soNWrite = 0x1024 // SO_NWRITE, sys/socket.h
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, soNWrite)
	if err != nil {
		return math.MaxInt32
	}
	return int32(n)
}
