package load

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// loop serves connections on one thread.
type loop struct {
	// Immutable.
	h          handler
	epoll      int
	wakeR      int
	wakeW      int
	to         syscall.SockaddrInet4
	sources    int
	readBuffer []byte

	// Owned by the loop.
	conns []*conn // by descriptor

	// Guarded by mu.
	mu    sync.Mutex
	queue []func()
}

// ipBindAddressNoPort has bind choose no port: connect does, so that a port serves once for each source address.
const ipBindAddressNoPort = 24

func newLoop(h handler, r Role) (*loop, error) {
	addr, err := netip.ParseAddrPort(r.Addr)
	if err != nil {
		return nil, err
	}
	l := &loop{h: h, sources: r.Sources, readBuffer: make([]byte, 64<<10)}
	l.to = syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	l.wakeR, l.wakeW = pipe[0], pipe[1]
	if err := l.register(syscall.EPOLL_CTL_ADD, l.wakeR, syscall.EPOLLIN); err != nil {
		return nil, err
	}
	go l.run() // until the process ends
	return l, nil
}

func (l *loop) register(op, fd int, events uint32) error {
	ev := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(l.epoll, op, fd, &ev))
}

// post has f called on the loop.
func (l *loop) post(f func()) {
	l.mu.Lock()
	l.queue = append(l.queue, f)
	first := len(l.queue) == 1
	l.mu.Unlock()
	if first {
		_, _ = syscall.Write(l.wakeW, []byte{0})
	}
}

// call has f called on the loop, and waits for it.
func (l *loop) call(f func()) {
	done := make(chan struct{})
	l.post(func() { f(); close(done) })
	<-done
}

func (l *loop) run() {
	runtime.LockOSThread()
	events := make([]syscall.EpollEvent, 512)
	for {
		timeout := -1
		if d := l.h.tick(); d >= 0 {
			timeout = int((d + time.Millisecond - 1) / time.Millisecond)
		}
		n, err := syscall.EpollWait(l.epoll, events, timeout)
		if err != nil && err != syscall.EINTR {
			panic(os.NewSyscallError("epoll_wait", err))
		}
		for _, ev := range events[:max(n, 0)] {
			if int(ev.Fd) == l.wakeR {
				l.runQueue()
				continue
			}
			if c := l.conns[ev.Fd]; c != nil {
				l.serveOnLoop(c, ev.Events)
			}
		}
	}
}

func (l *loop) runQueue() {
	var drain [64]byte
	_, _ = syscall.Read(l.wakeR, drain[:])
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()
	for _, f := range queue {
		f()
	}
}

// dialOnLoop begins a plain connection; handler.opened or closed tells the outcome, possibly at once.
func (l *loop) dialOnLoop(c *conn) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		l.h.closed(c, os.NewSyscallError("socket", err))
		return
	}
	c.fd = fd
	l.keep(c)
	// Errors do no harm: the system then chooses.
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	_ = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: source(int(c.number), l.sources)})
	switch err := syscall.Connect(fd, &l.to); err {
	case nil:
		if err := l.register(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLIN); err != nil {
			l.endOnLoop(c, err)
			return
		}
		l.h.opened(c)
	case syscall.EINPROGRESS:
		c.connecting = true
		if err := l.register(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLOUT); err != nil {
			l.endOnLoop(c, err)
		}
	default:
		l.endOnLoop(c, os.NewSyscallError("connect", err))
	}
}

func (l *loop) keep(c *conn) {
	for len(l.conns) <= c.fd {
		l.conns = append(l.conns, nil)
	}
	l.conns[c.fd] = c
}

func (l *loop) serveOnLoop(c *conn, events uint32) {
	if c.connecting {
		c.connecting = false
		code, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err == nil && code != 0 {
			err = syscall.Errno(code)
		}
		if err == nil {
			err = l.register(syscall.EPOLL_CTL_MOD, c.fd, syscall.EPOLLIN)
		}
		if err != nil {
			l.endOnLoop(c, fmt.Errorf("connect: %w", err))
			return
		}
		l.h.opened(c)
		return
	}
	if events&syscall.EPOLLOUT != 0 {
		rest := c.out
		c.out = nil
		l.writeOnLoop(c, rest)
		if len(c.out) == 0 && c.fd >= 0 {
			_ = l.register(syscall.EPOLL_CTL_MOD, c.fd, syscall.EPOLLIN)
		}
	}
	if c.fd >= 0 && events&^syscall.EPOLLOUT != 0 {
		if c.tls != nil {
			l.readTLS(c)
		} else {
			l.readPlain(c)
		}
	}
}

func (l *loop) readPlain(c *conn) {
	n, err := syscall.Read(c.fd, l.readBuffer)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case err != nil:
		l.endOnLoop(c, os.NewSyscallError("read", err))
	case n == 0:
		l.endOnLoop(c, io.EOF)
	default:
		if err := c.feed(l.h, l.readBuffer[:n]); err != nil {
			l.endOnLoop(c, err)
		}
	}
}

// sendOnLoop sends b, in TLS in records of at most record bytes; 0: as they come.
func (l *loop) sendOnLoop(c *conn, b []byte, record int) {
	if c.tls == nil {
		l.writeOnLoop(c, b)
		return
	}
	if record == 0 {
		record = len(b)
	}
	for len(b) > 0 && c.fd >= 0 {
		n := min(record, len(b))
		if _, err := c.tls.Write(b[:n]); err != nil {
			l.endOnLoop(c, err)
		}
		b = b[n:]
	}
	l.flushOnLoop(c)
}

func (l *loop) writeOnLoop(c *conn, b []byte) {
	if len(c.out) > 0 {
		c.out = append(c.out, b...)
		return
	}
	n, err := syscall.Write(c.fd, b)
	switch {
	case err == syscall.EAGAIN:
		n = 0
	case err != nil:
		l.endOnLoop(c, os.NewSyscallError("write", err))
		return
	}
	if n < len(b) {
		c.out = append([]byte(nil), b[n:]...)
		_ = l.register(syscall.EPOLL_CTL_MOD, c.fd, syscall.EPOLLIN|syscall.EPOLLOUT)
	}
}

// closeOnLoop closes c, which hears nothing more.
func (l *loop) closeOnLoop(c *conn) { l.endOnLoop(c, nil) }

func (l *loop) endOnLoop(c *conn, err error) {
	if c.fd < 0 {
		return
	}
	l.conns[c.fd] = nil
	syscall.Close(c.fd)
	c.fd = -1
	l.h.closed(c, err)
}

// source is the address of the number-th connection.
func source(number, sources int) [4]byte { return [4]byte{127, 0, 0, byte(2 + number%sources)} }

func dialTCP(addr string, number, sources int) (net.Conn, error) {
	from := source(number, sources)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from[:]}, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
		})
	}}
	return d.Dial("tcp4", addr)
}
