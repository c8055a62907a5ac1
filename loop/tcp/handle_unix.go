//go:build unix

package tcp

import "syscall"

type handle = int

const (
	noHandle handle = -1
	alone           = false // a port can have one socket only
)

func closeHandle(fd handle) error { return syscall.Close(fd) }

// reuse does as package net: a restarted server gets its port while old connections are in TIME_WAIT.
func reuse(fd handle) error {
	return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
}
