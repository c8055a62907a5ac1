package tcp

import "syscall"

type handle = syscall.Handle

const (
	noHandle = syscall.InvalidHandle
	alone    = true // a port can have one socket only
)

func closeHandle(fd handle) error { return syscall.Closesocket(fd) }

// reuse is not needed for a port with connections in TIME_WAIT, and would let anybody take it from us.
func reuse(handle) error { return nil }
