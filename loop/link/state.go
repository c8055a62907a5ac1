package link

// State is the life of a connection.
//
//	New ──▶ Open ──▶ Draining ──▶ Lingering ──▶ Closed
//	  └───────┴───────────┴──────────────────────▲
type State uint32

const (
	// New: being registered. To Open where it is read, or to Closed where that fails.
	New State = iota
	// Open: reading and writing. To Draining with Close, or with the peer's FIN while bytes are queued; to Closed
	// with Abort, Detach, the peer's FIN, or an error.
	Open
	// Draining: what is queued is still written, input is dropped. To Lingering when the queue is empty, to Closed
	// when it is and the peer's FIN was seen, or with Abort, an error or the linger limit.
	Draining
	// Lingering: FIN sent; input is dropped, so that the kernel has no reason to answer it with a reset, which would destroy what
	// the peer has not read yet. To Closed with the peer's FIN, an error or the linger limit.
	Lingering
	// Closed: nothing more is read or written. Final; OnClose follows.
	Closed
)

func (s State) String() string {
	return [...]string{"New", "Open", "Draining", "Lingering", "Closed"}[s]
}

// Pause is a reason for not reading, one bit each; a connection reads while there is none.
type Pause uint8
