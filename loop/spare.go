package loop

import (
	"os"
	"sync"
	"syscall"

	"github.com/panjf2000/gnet/v2/pkg/socket"

	"gridstream/loop/tcp"
)

// spare is descriptors held back, so that what takes some for a moment works when the process has no other left. A loop has one for what
// happens on it, and its reattacher another: who tries again and again does not take what a pause needs.
type spare struct {
	// Guarded by mu, a leaf.
	mu   sync.Mutex
	held []int
	lent bool // none is to be taken back before lend does it
}

// spareDescriptors is as many as enrolling takes beside the parked one, and Detach beside the attached one.
const spareDescriptors = 2

// replace is a duplicate of fd in place of a spare descriptor: nobody can take that in between.
func (s *spare) replace(fd int) (dup int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) == 0 {
		return -1, syscall.EMFILE
	}
	last := len(s.held) - 1
	dup = s.held[last]
	if err := dupOver(fd, dup); err != nil {
		return -1, err
	}
	s.held = s.held[:last]
	return dup, nil
}

// lend calls f, which takes descriptors for a moment, and once more with the spare ones free where there are no others. One goroutine
// at a time.
func (s *spare) lend(f func() error) error {
	err := f()
	if !tcp.IsShortage(err) {
		return err
	}
	s.mu.Lock()
	s.dropLocked()
	s.lent = true
	s.mu.Unlock()
	err = f()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent = false
	s.refillLocked()
	return err
}

// refill takes back what is missing, as far as there is something.
func (s *spare) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lent {
		s.refillLocked()
	}
}

func (s *spare) refillLocked() {
	for len(s.held) < spareDescriptors {
		fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		s.held = append(s.held, fd)
	}
}

// close is the end: nobody refills any more.
func (s *spare) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked()
}

func (s *spare) dropLocked() {
	for _, fd := range s.held {
		_ = syscall.Close(fd)
	}
	s.held = s.held[:0]
}

// dup is a duplicate of an attached connection's descriptor, which gnet closes behind this: a spare one that it took is
// taken back then, or by the watch, if somebody else is quicker.
func (l *Loop) dup(fd int) (dup int, err error) {
	if dup, err = socket.Dup(fd); err == nil {
		return dup, nil
	}
	if dup, err = l.spare.replace(fd); err == nil {
		l.execute(l.spare.refill)
	}
	return dup, err
}
