package driver

// ParseProxyHeader gives the tests the parser of PROXY protocol headers.
var ParseProxyHeader = parseProxyHeader

// Pending counts the connections that have a link and are not established.
func (d *core) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

// Jobs counts the handshakes that wait for a worker.
func (d *core) Jobs() int {
	d.security.mu.Lock()
	defer d.security.mu.Unlock()
	return len(d.security.jobs)
}

// Ended counts those of them whose link has ended.
func (d *core) Ended() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.security.mu.Lock()
	defer d.security.mu.Unlock()
	for c := range d.pending {
		if c.secure.cause != nil {
			n++
		}
	}
	return n
}
