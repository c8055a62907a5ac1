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
	mu     sync.Mutex
	file   *os.File // nil: lent
	closed bool
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

// lend calls f, which needs a descriptor for a moment, once more with the spare one where there is no other.
func (s *spare) lend(f func() error) error {
	err := f()
	if !tcp.IsShortage(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return err
	}
	s.file.Close()
	s.file = nil
	err = f()
	s.refillLocked()
	return err
}

// lent reports that it is to be taken back: with open, when gnet has closed its copy.
func (s *spare) lent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file == nil
}

func (s *spare) refillLocked() {
	if s.closed {
		return
	}
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
	s.closed = true
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}
