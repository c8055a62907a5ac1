package tlsadapter

// The states of a Session.
//
//	             Step                CloseNotify
//	Handshaking ------> Established -------------> Closing
//	                         |                        |
//	                         | peer's close_notify    | peer's close_notify
//	                         v                        v
//	                     PeerClosed -------------> Closed
//	                                 CloseNotify
//
//	Established, Closing, PeerClosed ---- Detach ----> Detached
//	Handshaking, Established, Closing, PeerClosed ---> Failed
//	any but Detached --------------------- Abort ----> Aborted

// State is where a Session is in its life.
type State uint8

const (
	// StateHandshaking is the state of a new session. Input arrives by Feed, work is done by Step.
	// Exits: StateEstablished, StateFailed, StateAborted.
	StateHandshaking State = iota
	// StateEstablished: Open and Seal work.
	// Exits: StateClosing, StatePeerClosed, StateDetached, StateFailed, StateAborted.
	StateEstablished
	// StateClosing: we sent close_notify; Open goes on.
	// Exits: StateClosed, StateDetached, StateFailed, StateAborted.
	StateClosing
	// StatePeerClosed: the peer sent close_notify; Seal goes on.
	// Exits: StateClosed, StateDetached, StateFailed, StateAborted.
	StatePeerClosed
	// StateClosed: both sent close_notify. Exit: StateAborted.
	StateClosed
	// StateFailed: the handshake or a record was refused, by either side, or the stream was cut. What is in the output,
	// perhaps an alert, can still be taken. Exit: StateAborted.
	StateFailed
	// StateAborted: dropped; nothing is kept. Final.
	StateAborted
	// StateDetached: the session goes on as a blocking *tls.Conn on a net.Conn. Final.
	StateDetached
)

// exits has a bit for each state that may follow.
var exits = [...]uint16{
	StateHandshaking: 1<<StateEstablished | 1<<StateFailed | 1<<StateAborted,
	StateEstablished: 1<<StateClosing | 1<<StatePeerClosed | 1<<StateDetached | 1<<StateFailed | 1<<StateAborted,
	StateClosing:     1<<StateClosed | 1<<StateDetached | 1<<StateFailed | 1<<StateAborted,
	StatePeerClosed:  1<<StateClosed | 1<<StateDetached | 1<<StateFailed | 1<<StateAborted,
	StateClosed:      1 << StateAborted,
	StateFailed:      1 << StateAborted,
	StateAborted:     0,
	StateDetached:    0,
}

var stateNames = [...]string{
	StateHandshaking: "handshaking",
	StateEstablished: "established",
	StateClosing:     "closing",
	StatePeerClosed:  "peer closed",
	StateClosed:      "closed",
	StateFailed:      "failed",
	StateAborted:     "aborted",
	StateDetached:    "detached",
}

func (s State) String() string { return stateNames[s] }

// moveLocked is the one place where the state changes. It reports whether the transition is legal; if not nothing
// changes: what comes late, such as a failure after Abort, has no effect.
func (s *Session) moveLocked(to State) bool {
	if exits[s.state]&(1<<to) == 0 {
		return false
	}
	s.state = to
	return true
}
