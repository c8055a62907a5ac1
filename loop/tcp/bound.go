package tcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// Socket says how a TCP socket is made. Sizes in bytes; 0 is the system's default.
type Socket struct {
	Network       string // "tcp4", "tcp6", or "tcp" for both in one socket
	Address       netip.AddrPort
	ReceiveBuffer int
	SendBuffer    int
	NoDelay       bool
	KeepAlive     net.KeepAliveConfig
}

// Bound is a TCP socket that has its port and does not listen: a connection is refused. Not safe for concurrent use.
type Bound struct {
	socket Socket
	fd     handle // noHandle: the port was given to a listener, or up
}

// Bind makes one. With port 0 the system chooses; see Bound.Address.
func Bind(s Socket) (*Bound, error) {
	b := &Bound{socket: s, fd: noHandle}
	return b, b.bind()
}

// Address is what it is bound to.
func (b *Bound) Address() netip.AddrPort { return b.socket.Address }

func (b *Bound) bind() error {
	family, sa, err := sockaddr(b.socket.Network, b.socket.Address)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = b.setUp(fd, family, sa)
	if err != nil {
		_ = closeHandle(fd)
		return err
	}
	b.fd = fd
	return nil
}

func (b *Bound) setUp(fd handle, family int, sa syscall.Sockaddr) error {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("setnonblock", err)
	}
	if family == syscall.AF_INET6 {
		only := 0
		if b.socket.Network == "tcp6" {
			only = 1
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := reuse(fd); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := b.socket.setBuffers(fd); err != nil {
		return err
	}
	if err := syscall.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch bound := bound.(type) {
	case *syscall.SockaddrInet4:
		b.socket.Address = netip.AddrPortFrom(b.socket.Address.Addr(), uint16(bound.Port))
	case *syscall.SockaddrInet6:
		b.socket.Address = netip.AddrPortFrom(b.socket.Address.Addr(), uint16(bound.Port))
	}
	return nil
}

// setBuffers sets the sizes of the kernel's buffers: before listen or connect, so that the window's scale fits.
func (s Socket) setBuffers(fd handle) error {
	for _, o := range []struct{ option, size int }{{syscall.SO_RCVBUF, s.ReceiveBuffer}, {syscall.SO_SNDBUF, s.SendBuffer}} {
		if o.size == 0 {
			continue
		}
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, o.option, o.size); err != nil {
			return &SockOptError{os.NewSyscallError("setsockopt", err)}
		}
	}
	return nil
}

// SockOptError is a socket option that the system refused.
type SockOptError struct{ Err error }

func (e *SockOptError) Error() string { return e.Err.Error() }
func (e *SockOptError) Unwrap() error { return e.Err }

// Listen listens on what it is bound to, and gives the port to the listener. backlog <= 0 is the system's most.
func (b *Bound) Listen(backlog int) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAlive:       -1,
		KeepAliveConfig: b.socket.KeepAlive,
		Control: func(_, _ string, rc syscall.RawConn) error {
			return control(rc, b.socket.setBuffers)
		},
	}
	// A second socket may be bound to the port as long as neither listens: then nobody can take it meanwhile. Not
	// all systems allow that.
	if alone {
		b.Close()
	}
	ln, err := lc.Listen(context.Background(), b.socket.Network, b.socket.Address.String())
	if err != nil && errors.Is(err, syscall.EADDRINUSE) && b.fd != noHandle {
		b.Close()
		ln, err = lc.Listen(context.Background(), b.socket.Network, b.socket.Address.String())
	}
	if err != nil {
		return nil, err
	}
	b.Close()
	if backlog <= 0 {
		return ln, nil
	}
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = control(rc, func(fd handle) error {
			return os.NewSyscallError("listen", syscall.Listen(fd, backlog))
		})
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// control runs f on the descriptor of rc.
func control(rc syscall.RawConn, f func(fd handle) error) (err error) {
	if controlErr := rc.Control(func(fd uintptr) { err = f(handle(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}

// Rebind takes the port back after the listener of Listen was closed.
func (b *Bound) Rebind() error {
	if b.fd != noHandle {
		return nil
	}
	return b.bind()
}

// Close gives the port up.
func (b *Bound) Close() {
	if b.fd != noHandle {
		_ = closeHandle(b.fd)
		b.fd = noHandle
	}
}

// TuneAccepted sets what a connection does not get from its listener: accept in package net switches Nagle's
// algorithm off.
func (s Socket) TuneAccepted(nc *net.TCPConn) error {
	if s.NoDelay {
		return nil
	}
	return nc.SetNoDelay(false)
}

// Dial connects to addr from the socket's local address, where that is a particular one. It blocks until ctx is done.
func (s Socket) Dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{
		KeepAlive:       -1,
		KeepAliveConfig: s.KeepAlive,
		Control: func(_, _ string, rc syscall.RawConn) error {
			return control(rc, func(fd handle) error {
				bindLate(fd)
				return s.setBuffers(fd)
			})
		},
	}
	if local := s.Address.Addr(); local.IsValid() && !local.IsUnspecified() && local.Unmap().Is4() == addr.Addr().Unmap().Is4() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	nc, err := d.DialContext(ctx, s.Network, addr.String())
	if err != nil {
		return nil, err
	}
	tc := nc.(*net.TCPConn)
	if !s.NoDelay {
		_ = tc.SetNoDelay(false)
	}
	return tc, nil
}

func sockaddr(network string, ap netip.AddrPort) (family int, sa syscall.Sockaddr, err error) {
	ip := ap.Addr()
	if network == "tcp4" || network == "tcp" && ip.Is4() {
		if !ip.Unmap().Is4() {
			return 0, nil, &net.AddrError{Err: "not an IPv4 address", Addr: ip.String()}
		}
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: int(ap.Port()), Addr: ip.Unmap().As4()}, nil
	}
	zone, err := zoneID(ip.Zone())
	if err != nil {
		return 0, nil, err
	}
	return syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(ap.Port()), Addr: ip.As16(), ZoneId: zone}, nil
}

func zoneID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index), nil
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return 0, &net.AddrError{Err: "no such zone", Addr: zone}
	}
	return uint32(n), nil
}
