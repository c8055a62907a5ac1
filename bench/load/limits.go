package load

import "syscall"

// fileLimit is RLIMIT_NOFILE. Go has raised the soft limit to the hard one already.
func fileLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return uint64(r.Cur)
}
