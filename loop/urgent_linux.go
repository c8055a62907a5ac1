package loop

import (
	"reflect"
	"syscall"
)

// urgent is what it takes to ignore TCP's urgent data. gnet has its poller tell of it (EPOLLPRI), and reads: a peer that sends a segment
// with an urgent byte behind a gap, which never closes, has nothing to be read, and the loop turns for ever. gnet offers no way not
// to ask, so that it is taken back here.
type urgent struct {
	// Owned by the loop.
	epoll int // gnet's descriptor; 0: not looked for
}

func (l *Loop) ignoreUrgent(fd int) {
	u := &l.urgent
	if u.epoll == 0 {
		u.epoll = epollOf(l.el)
	}
	if u.epoll > 0 {
		_ = syscall.EpollCtl(u.epoll, syscall.EPOLL_CTL_MOD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
	}
}

// epollOf is the descriptor of a gnet event loop's poller; -1 where it is not where v2.10.0 has it.
func epollOf(loop any) int {
	v := reflect.ValueOf(loop)
	for _, field := range []string{"poller", "fd"} {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return -1
		}
		if v = v.FieldByName(field); !v.IsValid() {
			return -1
		}
	}
	if v.Kind() != reflect.Int {
		return -1
	}
	return int(v.Int())
}
