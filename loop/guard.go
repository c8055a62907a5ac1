package loop

import "gridstream/loop/link"

// guard runs a callback and contains its panic to this connection.
func (c *Conn) guard(callback func()) {
	defer link.Contain(c, c.h)
	callback()
}
