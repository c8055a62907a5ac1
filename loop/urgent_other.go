//go:build !linux

package loop

// urgent: see urgent_linux.go. kqueue does not tell of urgent data.
type urgent struct{}

func (*Loop) ignoreUrgent(int) {}
