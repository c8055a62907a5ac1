package loop

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"github.com/panjf2000/gnet/v2/pkg/socket"
)

// spare is a descriptor held back, so that parking works when the process has no other left: gnet's copy makes
// room again at once.
type spare struct {
	// Guarded by mu.
	mu   sync.Mutex
	file *os.File // nil: lent
}

func (s *spare) dup(fd int) (int, error) {
	dup, err := socket.Dup(fd)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil && err == nil {
		s.refillLocked()
	}
	if err == nil || s.file == nil || !isShortage(err) {
		return dup, err
	}
	s.file.Close()
	s.file = nil
	return socket.Dup(fd)
}

func (s *spare) refillLocked() {
	if f, err := os.Open(os.DevNull); err == nil {
		s.file = f
	}
}

func (s *spare) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		s.refillLocked()
	}
}

func (s *spare) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

func isShortage(err error) bool {
	for _, e := range shortages {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// shortages pass when somebody gives something back.
var shortages = [...]syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}
