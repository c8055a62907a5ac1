package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/socket"
)

// gnet reads whenever there is something. To pause, the descriptor is duplicated, gnet closes its copy (the kernel's
// socket lives on, and sends no FIN), and the duplicate is parked: its window closes when the kernel's buffer is
// full. To resume, it is enrolled again, into the same loop, by the loop's reattacher, since enrolling waits for the loop.

// Pause stops reading for the reason p. What is read already is still delivered.
func (c *Conn) Pause(p Pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.State() != Open {
		return
	}
	if c.pauses == 0 {
		c.loop.paused.Add(1)
	}
	c.pauses |= p
	if c.gc != nil && !c.corked.Load() {
		c.loop.execute(func() { c.parkOnLoop() })
	}
}

// Resume takes the reason p back, and reads again when it was the last.
func (c *Conn) Resume(p Pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resumeLocked(p)
}

// Paused reports whether there is a reason for not reading.
func (c *Conn) Paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pauses != 0
}

func (c *Conn) resumeLocked(p Pause) {
	c.pauses &^= p
	if c.pauses != 0 || c.gc != nil || c.fd < 0 || c.attaching || c.eof || c.State() == Closed {
		return
	}
	c.attaching = true
	c.loop.reattacher.push(c)
}

// parkOnLoop parks on behalf of a Pause that came from another goroutine.
func (c *Conn) parkOnLoop() {
	c.mu.Lock()
	leaving := c.settleOnLoopLocked()
	finish := c.finishableLocked()
	c.mu.Unlock()
	c.loop.closeOnLoop(leaving)
	if finish {
		c.loop.finishLater(c)
	}
}

// parkOnLoopLocked moves an attached connection to a duplicate of its descriptor, and returns the gnet.Conn that gnet shall close.
func (c *Conn) parkOnLoopLocked() gnet.Conn {
	leaving, ok := c.leaveOnLoopLocked()
	if ok && !c.idleLocked() {
		c.watchLocked()
	}
	return leaving
}

// leaveOnLoopLocked takes the descriptor, as a duplicate, from gnet. false: there was none, and the connection is Closed.
func (c *Conn) leaveOnLoopLocked() (leaving gnet.Conn, ok bool) {
	fd, err := c.loop.engine.spare.dup(int(c.fd))
	if err != nil {
		c.abortLocked(os.NewSyscallError("dup", err))
		return c.gc, false
	}
	leaving = c.gc
	c.unwatchLocked()
	c.gc, c.fd = nil, int32(fd)
	return leaving, true
}

// reattachOnLoopLocked is OnOpen of a connection that was parked.
func (c *Conn) reattachOnLoopLocked(gc gnet.Conn) {
	c.unwatchLocked()
	c.closeFDLocked()
	c.gc, c.fd = gc, int32(gc.Fd())
	c.lastRead.Store(int64(c.loop.engine.clock.now()))
	if c.State() != Closed {
		c.flushLocked()
	}
}

// reattacher enrolls parked connections again, one after the other.
type reattacher struct {
	// Immutable.
	wake chan struct{} // holds one
	stop chan struct{}
	done sync.WaitGroup

	// Guarded by mu.
	mu    sync.Mutex
	queue []*Conn // each at most once: Conn.attaching
}

func (r *reattacher) push(c *Conn) {
	r.mu.Lock()
	r.queue = append(r.queue, c)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reattacher) run() {
	defer r.done.Done()
	const retry = 10 * time.Millisecond // after a shortage of descriptors
	timer := time.NewTimer(retry)
	defer timer.Stop()
	var batch []*Conn
	for {
		select {
		case <-r.stop:
			return
		case <-r.wake:
		case <-timer.C:
		}
		r.mu.Lock()
		batch, r.queue = r.queue, batch[:0]
		r.mu.Unlock()
		for _, c := range batch {
			if !c.reattach() {
				r.mu.Lock()
				r.queue = append(r.queue, c)
				r.mu.Unlock()
				timer.Reset(retry)
			}
		}
		clear(batch)
	}
}

// reattach enrolls a parked connection; false is to be tried again. It blocks until the loop has it.
func (c *Conn) reattach() bool {
	c.mu.Lock()
	if c.State() == Closed || c.pauses != 0 {
		c.attaching = false
		if c.State() == Closed {
			c.closeFDLocked()
		}
		finish := c.finishableLocked()
		c.mu.Unlock()
		if finish {
			c.loop.finishLater(c)
		}
		return true
	}
	c.reopened = false
	fd, err := socket.Dup(int(c.fd))
	c.mu.Unlock()
	if err != nil {
		return false
	}
	nc, err := c.loop.engine.fileConn(fd)
	if err != nil {
		return false
	}
	if nc.RemoteAddr() == nil {
		// Reset while it was parked: gnet would not take it, but what came before may still be there to read.
		nc.Close()
		c.loop.execute(func() { c.readRestOnLoop() })
		return true
	}
	err = c.loop.enroll(nc, c)
	if isShortage(err) {
		return false
	}
	c.mu.Lock()
	if err == nil && c.reopened {
		c.mu.Unlock()
		return true
	}
	if err == nil {
		err = ErrNotRegistered
	}
	c.attaching = false
	c.abortLocked(err)
	c.closeFDLocked()
	finish := c.finishableLocked()
	c.mu.Unlock()
	if finish {
		c.loop.finishLater(c)
	}
	return true
}

// readRestOnLoop reads what a connection that was reset while parked has left, and ends it.
func (c *Conn) readRestOnLoop() {
	buf := make([]byte, 16<<10)
	for {
		n, err := syscall.Read(int(c.fd), buf)
		if n > 0 {
			c.received.Add(uint64(n))
			c.loop.received.Add(uint64(n))
			if c.State() == Open {
				c.deliver(buf[:n])
			}
		}
		c.mu.Lock()
		switch {
		case n > 0 && c.State() == Open && c.pauses != 0:
			c.attaching = false // paused again: parked as it was
			c.mu.Unlock()
			return
		case n > 0 && c.State() != Closed || err == syscall.EINTR:
			c.mu.Unlock()
			continue
		case err != nil && n <= 0:
			c.setReasonLocked(os.NewSyscallError("read", err))
		default:
			c.setReasonLocked(io.EOF)
		}
		c.attaching = false
		c.abortLocked(nil)
		c.closeFDLocked()
		c.finished = true
		c.mu.Unlock()
		c.loop.finishOnLoop(c)
		return
	}
}

// fileConn makes a net.Conn of a descriptor, which it owns from then on, also when it fails. Package net sets options that it sets for
// every connection: they are set back, except that keep-alive probes which something else than the engine had
// switched on go on with package net's intervals.
func (e *Engine) fileConn(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	noDelay, _ := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
	keepAlive, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		nc.Close()
		return nil, net.UnknownNetworkError(nc.LocalAddr().Network())
	}
	if noDelay == 0 {
		_ = tc.SetNoDelay(false)
	}
	if keepAlive == 0 {
		_ = tc.SetKeepAlive(false)
	} else if e.cfg.KeepAlive.Enable {
		_ = tc.SetKeepAliveConfig(e.cfg.KeepAlive)
	}
	return tc, nil
}

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

// Detach takes an open connection out of the engine: its descriptor as a net.Conn, and the bytes that were queued
// and are still to be written. The connection ends with reason. It blocks until the loop got to it, and
// must not be called on a loop.
func (c *Conn) Detach(reason error) (*net.TCPConn, []byte, error) {
	for {
		answer := make(chan detached, 1)
		if !c.loop.execute(func() { answer <- c.detachOnLoop(reason) }) {
			return nil, nil, ErrEngineClosed
		}
		var d detached
		select {
		case d = <-answer:
		case <-c.loop.engine.ended: // the task has run by now, or never will
			select {
			case d = <-answer:
			default:
				return nil, nil, ErrEngineClosed
			}
		}
		if d.again {
			// Being enrolled, which takes the loop and the reattacher a moment.
			time.Sleep(time.Millisecond)
			continue
		}
		if d.err != nil {
			return nil, nil, d.err
		}
		nc, err := c.loop.engine.fileConn(d.fd)
		return nc, d.queued, err
	}
}

type detached struct {
	fd     int
	queued []byte
	again  bool
	err    error
}

func (c *Conn) detachOnLoop(reason error) (d detached) {
	c.mu.Lock()
	if c.State() != Open || c.broken {
		c.mu.Unlock()
		return detached{err: ErrClosed}
	}
	if c.attaching {
		c.mu.Unlock()
		return detached{again: true}
	}
	var leaving gnet.Conn
	if c.gc != nil {
		var ok bool
		if leaving, ok = c.leaveOnLoopLocked(); !ok {
			err := c.reason
			c.mu.Unlock()
			c.loop.closeOnLoop(leaving)
			return detached{err: err}
		}
	}
	c.unwatchLocked()
	if c.sealed {
		var plain []byte
		if c.plain != nil {
			plain = c.plain.B
		}
		c.sealLocked(plain)
	}
	d = detached{fd: int(c.fd), queued: append([]byte(nil), c.out.bytes()...)}
	c.dropQueueLocked()
	c.fd = -1
	c.setReasonLocked(reason)
	c.state.Store(uint32(Closed))
	c.finished = true
	c.mu.Unlock()
	c.loop.closeOnLoop(leaving)
	c.loop.finishOnLoop(c)
	return d
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
