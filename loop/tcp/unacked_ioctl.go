//go:build linux || freebsd

package tcp

import (
	"math"
	"syscall"
	"unsafe"
)

// Unacked is how many bytes the kernel has of a socket that the peer has not acknowledged: without it a slow reader that closing waits for
// looks like one that does not read. The only unsafe of the package: package syscall has the ioctl, and no function for it.
func Unacked(fd int) int32 {
	var n int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), ioctlUnacked, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return math.MaxInt32
	}
	return n
}
