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

// Ended counts the pending whose link has ended.
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

// Stepping counts the pending for which a step is due or under way.
func (d *core) Stepping() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.security.mu.Lock()
	defer d.security.mu.Unlock()
	for c := range d.pending {
		if c.secure.steps > 0 {
			n++
		}
	}
	return n
}
