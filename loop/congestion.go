package loop

import (
	"sync"

	errorx "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"github.com/panjf2000/gnet/v2/pkg/queue"

	"gridstream/loop/link"
)

// congestion flushes connections whose socket was full when it is writable again: a goroutine on a poller of its own.
type congestion struct {
	// Immutable.
	poller *netpoll.Poller
	done   chan struct{}

	// Guarded by mu, a leaf.
	mu      sync.Mutex
	watched map[int]*Conn // by descriptor
	closed  bool
}

func newCongestion() (*congestion, error) {
	poller, err := netpoll.OpenPoller()
	if err != nil {
		return nil, err
	}
	return &congestion{poller: poller, done: make(chan struct{}), watched: make(map[int]*Conn)}, nil
}

func (g *congestion) run() {
	defer close(g.done)
	_ = g.poller.Polling(func(fd int, _ netpoll.IOEvent, _ netpoll.IOFlags) error {
		g.mu.Lock()
		c := g.watched[fd]
		g.mu.Unlock()
		if c != nil {
			c.flush()
		}
		return nil
	})
}

// watch has c flushed when its descriptor is writable. Edge-triggered: the socket was found full just before, or
// is found writable at once.
func (g *congestion) watch(fd int, c *Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return link.ErrTransportClosed
	}
	g.watched[fd] = c
	if err := g.poller.AddWrite(&netpoll.PollAttachment{FD: fd}, true); err != nil {
		delete(g.watched, fd)
		return err
	}
	return nil
}

// unwatch must come before the descriptor is closed: the poller would go on with the socket as long as a duplicate lives.
func (g *congestion) unwatch(fd int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	delete(g.watched, fd)
	_ = g.poller.Delete(fd)
}

// close ends the goroutine. Every connection is closed by now.
func (g *congestion) close() {
	_ = g.poller.Trigger(queue.HighPriority, func(any) error { return errorx.ErrEngineShutdown }, nil)
	<-g.done
	g.release()
}

// release gives the descriptors back. The goroutine has ended, or was never started.
func (g *congestion) release() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	_ = g.poller.Close()
}
