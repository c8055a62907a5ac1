package load

import (
	"time"
)

// Kind is what clients do.
type Kind string

const (
	// Echo has packets echoed, on Active of its connections.
	Echo Kind = "echo"
	// Sink takes packets that the server sends of its own accord.
	Sink Kind = "sink"
	// Churn makes connections, has a packet echoed on each, and closes them: Conns at a time.
	Churn Kind = "churn"
	// Handshakes is Churn over TLS.
	Handshakes Kind = "handshakes"
)

// Role is what clients are to do. Sizes are in bytes.
type Role struct {
	Kind  Kind
	Addr  string
	TLS   bool
	Conns int

	Size     int           // of a packet, without framing; at least MinSize
	Record   int           // TLS: most plaintext in a record of the first packet; 0: as much as TLS allows
	Welcomed bool          // the server sends the first packet; else it echoes the first one
	AtOnce   int           // connections that are being made; 0: 64
	Active   int           // Echo: connections that send between Start and Stop; 0: all
	Depth    int           // Echo: packets under way on each of them
	Pace     time.Duration // Echo: instead of Depth, a packet on each so often, whether the last one was answered or not
	Senders  int           // Sink: how many number their packets, for any connection; 0: one, for all. One process
	Resumed  bool          // Handshakes: resume the first one's session

	PerProcess int // connections that a process has at most; 0: as its limit of descriptors allows

	// A process's part; see Start.
	First   int // number of its first connection
	Sources int // source addresses, from 127.0.0.2 on
}

// MinSize is what the clients write into a packet.
const MinSize = 16

// Outcome is what an order came to.
type Outcome struct {
	Count   uint64 // answers, packets, or connections
	Seconds float64
	Latency Sparse
	Failed  uint64
	Error   string // the first failure
}

// order is one line on the stdin of a process of clients; each is answered with an Outcome.
type order struct {
	Do verb
	N  uint64
}

type verb string

const (
	doConnect    verb = "connect"    // returns when each connection has exchanged a packet
	doStart      verb = "start"      // the load
	doMark       verb = "mark"       // begins what stop tells of
	doCount      verb = "count"      // tells how many answers or packets there were since mark; the load goes on
	doStop       verb = "stop"       // ends the load; returns when everything is answered
	doExpect     verb = "expect"     // N more packets in all: the next await waits for them
	doAwait      verb = "await"      // returns when they are there
	doDisconnect verb = "disconnect" // closes every connection
)

// clients is a load as its process sees it. One order at a time.
type clients interface {
	connect() error
	start() error
	mark()
	count() uint64
	stop() Outcome
	expect(n uint64)
	await() error
	disconnect()
}
