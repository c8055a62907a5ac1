package loop

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/socket"

	"gridstream/loop/link"
	"gridstream/loop/tcp"
)

// reattacher enrolls parked connections again, one after the other.
type reattacher struct {
	// Immutable.
	wake chan struct{} // holds one
	stop chan struct{}
	done sync.WaitGroup

	spare spare

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
	if c.State() == link.Closed || c.pauses != 0 {
		c.attaching = false
		if c.State() == link.Closed {
			c.closeFDLocked()
		}
		done := after{finish: c.finishableLocked()}
		c.mu.Unlock()
		done.run(c)
		return true
	}
	c.reopened, c.short = false, false
	fd := int(c.fd) // stays: it is c.attaching
	c.mu.Unlock()
	var nc *net.TCPConn
	err := c.loop.reattacher.spare.lend(func() (err error) {
		if nc, err = c.loop.engine.fileConn(fd); err != nil || nc.RemoteAddr() == nil {
			return err
		}
		return c.loop.enroll(nc, c)
	})
	switch {
	case nc == nil || tcp.IsShortage(err):
		c.mu.Lock()
		c.short = true
		c.mu.Unlock()
		return false
	case nc.RemoteAddr() == nil:
		// Reset while it was parked: gnet would not take it, but what came before may still be there to read.
		nc.Close()
		c.loop.execute(func() { c.readRestOnLoop() })
		return true
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
	done := after{finish: c.finishableLocked()}
	c.mu.Unlock()
	done.run(c)
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
			if c.State() == link.Open {
				c.deliver(buf[:n])
			}
		}
		c.mu.Lock()
		switch {
		case n > 0 && c.State() == link.Open && c.pauses != 0:
			c.attaching = false // paused again: parked as it was
			c.mu.Unlock()
			return
		case n > 0 && c.State() != link.Closed || err == syscall.EINTR:
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

// fileConn makes a net.Conn of a duplicate of fd; until it has returned it takes one descriptor more. Package net sets options that it
// sets for every connection: they are set back, except that keep-alive probes which something else than the engine had
// switched on go on with package net's intervals.
func (e *Engine) fileConn(fd int) (*net.TCPConn, error) {
	dup, err := socket.Dup(fd)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	noDelay, _ := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
	keepAlive, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	f := os.NewFile(uintptr(dup), "")
	nc, err := net.FileConn(f)
	f.Close()
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
	} else if e.cfg.Socket.KeepAlive.Enable {
		_ = tc.SetKeepAliveConfig(e.cfg.Socket.KeepAlive)
	}
	return tc, nil
}
