//go:build unix

package tcp

import "syscall"

// DescriptorLimit is RLIMIT_NOFILE: how many descriptors the process may have open.
func DescriptorLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(uint64(r.Cur), mostDescriptors))
}
