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

// dup is a duplicate of fd. If it took the spare, that is to be taken back when gnet has closed its copy: see lent.
func (s *spare) dup(fd int) (dup int, err error) {
	err = s.lend(func() error {
		dup, err = socket.Dup(fd)
		return err
	})
	return dup, err
}

// lend calls f, which needs a descriptor, and once more with the spare one where there is no other.
func (s *spare) lend(f func() error) error {
	err := f()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.file == nil && err == nil:
		s.refillLocked()
	case s.file != nil && tcp.IsShortage(err):
		s.file.Close()
		s.file = nil
		return f()
	}
	return err
}

// lent reports that it is to be taken back, with open, when there is a descriptor again.
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
