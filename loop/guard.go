package loop

import (
	"runtime/debug"

	"gridstream/loop/link"
)

// guard runs a callback and contains its panic to this connection.
func (c *Conn) guard(callback func()) {
	defer c.contain()
	callback()
}

func (c *Conn) contain() {
	if v := recover(); v != nil {
		p := &link.PanicError{Value: v, Stack: debug.Stack()}
		c.h.OnPanic(p)
		c.Abort(p)
	}
}
