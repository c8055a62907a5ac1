package driver

// ParseProxyHeader gives the tests the parser of PROXY protocol headers.
var ParseProxyHeader = parseProxyHeader

// Pending counts the connections that have a link and are not established.
func (d *core) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}
