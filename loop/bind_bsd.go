//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package loop

// bindLate: these systems have no such option.
func bindLate(int) {}
