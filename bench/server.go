package bench

import (
	"flag"
	"runtime"

	"gridstream/bench/load"
)

// Loops is how many event loops a server has, where one is asked: half of the cores, since its clients share them.
var Loops = max(1, runtime.GOMAXPROCS(0)/2)

// First is which of the servers that are compared has the first turn; the others follow in their order. What is measured first may have it
// harder, or easier, than what comes behind it.
var First int

// Flags makes Loops and First flags of the command line.
func Flags() {
	flag.IntVar(&Loops, "loops", Loops, "event loops of a server, where it lets one choose")
	flag.IntVar(&First, "first", First, "which of the servers has the first turn")
}

// Server is what is measured: it sends every packet back. Framing is a length of two bytes, big-endian. What a server does not
// offer is nil.
type Server struct {
	Addr        string
	Connections func() int    // established ones
	Events      func() Events // told so far
	// Broadcast sends packet to everybody, and returns for how many it was queued.
	Broadcast func(packet []byte) int
	// Group is Broadcast to a group, of which everybody is a member.
	Group func(packet []byte) int
	// Senders returns a function for each connection, which sends from outside the event loops and waits for room.
	Senders func() []func(packet []byte) error
	Close   func() error
}

// Events are counts.
type Events struct{ Established, Disconnected uint64 }

// Options is what the benchmarks vary.
type Options struct {
	Identity   *Identity // nil: plain
	Welcome    []byte    // the packet to send in the event that a connection is established; nil: none
	Broadcasts bool      // Broadcast and Senders will be called
	Group      bool      // Group will be called
	Polled     bool      // one goroutine asks for events and packets, and answers
}

// Impl is a kind of server, by the name that benchmarks give it.
type Impl struct {
	Name  string
	Start func(Options) (*Server, error)
	Only  func(Options) bool // whether it does what is asked; nil: always
}

// Welcome is a packet for Options.
func Welcome() []byte {
	packet := make([]byte, packetSize)
	load.Fill(packet, 0, 0)
	return packet
}

// packetSize is what most benchmarks send.
const packetSize = 64
