package link

import "runtime/debug"

// Contain is to be deferred around a callback of h: a panic in it ends l, and nothing else.
func Contain(l Link, h Handler) {
	if v := recover(); v != nil {
		p := &PanicError{Value: v, Stack: debug.Stack()}
		h.OnPanic(p)
		l.Abort(p)
	}
}
