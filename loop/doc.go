// Package loop is the multi-reactor engine: TCP connections as streams of bytes on gnet event loops.
//
// It knows bytes, not packets and not TLS. No gnet type leaves it. What gnet leaves out is added here through its
// public API: accepting that survives a shortage, bounded outbound queues with one write for many small sends, reading that can be paused, closing that
// delivers, coarse timers, panics contained to one connection.
//
// Reading is gnet's: each [Loop] is a gnet client with one event loop. Writing is done by whoever holds the connection's lock:
// the loop itself at the end of a callback, the loop's flusher, a goroutine that wakes once for a burst of sends from other
// goroutines, or, when a congested socket becomes writable, a goroutine on a poller of gnet's pkg/netpoll.
// docs/architecture.md has the picture, docs/ownership.md who owns what.
package loop
