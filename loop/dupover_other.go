//go:build unix && !linux

package loop

import "syscall"

// dupOver makes to, which is closed, a duplicate of fd, in one step.
func dupOver(fd, to int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Dup2(fd, to); err != nil {
		return err
	}
	syscall.CloseOnExec(to)
	return nil
}
