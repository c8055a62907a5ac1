package loop

import "syscall"

// dupOver makes to, which is closed, a duplicate of fd, in one step.
func dupOver(fd, to int) error { return syscall.Dup3(fd, to, syscall.O_CLOEXEC) }
