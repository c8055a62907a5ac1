package main

import (
	"fmt"
	"syscall"
)

// spareDescriptors is what a process needs besides its connections: standard files, pipes, pollers, and two
// for each connection on its way in.
const spareDescriptors = 64 + 2*loginsAtOnce

// checkDescriptors says whether RLIMIT_NOFILE allows that many connections in a process, and what to do if not. Go
// has raised the soft limit to the hard one already.
func checkDescriptors(players int) error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return nil // then the system says so when there are none left
	}
	return descriptorsFor(players, uint64(r.Cur))
}

func descriptorsFor(players int, limit uint64) error {
	need := uint64(players + spareDescriptors)
	if need <= limit {
		return nil
	}
	advice := ""
	if limit > spareDescriptors {
		advice = fmt.Sprintf("\nOr play with fewer: -players %d", limit-spareDescriptors)
	}
	return fmt.Errorf(`%s players take %s file descriptors in each of two processes; the limit (RLIMIT_NOFILE) is %s.
Raise it in this shell, as root where it is the hard limit that is too low: ulimit -n %d%s`,
		thousands(uint64(players)), thousands(need), thousands(limit), need, advice)
}
