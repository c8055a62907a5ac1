package tcp

import (
	"errors"
	"syscall"
)

// IsShortage reports whether err passes when somebody gives something back: descriptors, memory.
func IsShortage(err error) bool {
	for _, e := range shortages {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// shortages pass when somebody gives something back.
var shortages = [...]syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

// mostDescriptors is how many a process is taken to have where there is no lower limit.
const mostDescriptors = 1 << 24
