package loop

import (
	"os"
	"sync"

	"github.com/panjf2000/gnet/v2/pkg/socket"

	"gridstream/loop/tcp"
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
	if err == nil || s.file == nil || !tcp.IsShortage(err) {
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
