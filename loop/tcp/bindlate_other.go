//go:build !linux

package tcp

// bindLate: these systems have no such option.
func bindLate(handle) {}
