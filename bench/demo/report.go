package main

import "time"

// order is the line of JSON that starts the players' process, on its standard input. After it comes "stop", for an
// early end, or the end of the input: then whoever gave the order is gone.
type order struct {
	Port    uint16
	Players int
	Length  time.Duration // of play
	Dial    string        // dialDriver or dialNet

	Certificate []byte `json:",omitempty"` // PEM: the server's, if it is secure
}

// What the players connect with.
const (
	dialDriver = "driver"
	dialNet    = "net"
)

// phase is what the players are doing. They go through the phases in order; an early end skips some.
type phase int

const (
	connecting phase = iota // → playing when everybody is in or has failed
	playing                 // → leaving when the time is up
	leaving                 // → gone when everybody has had its bye, or some time has passed
	gone                    // the last report
)

func (p phase) String() string {
	return [...]string{"connecting", "playing", "leaving", "done"}[p]
}

// report is the players' side of things: a line of JSON a second and at each change of phase.
type report struct {
	Second     bool // rather than a change of phase
	Phase      phase
	Connecting time.Duration // how long it took until everybody was in
	Played     time.Duration // so far

	Joined       int
	Failed       int    // never got in
	Dropped      int    // lost the connection while playing
	FirstFailure string `json:",omitempty"`

	MovesSent         uint64
	MovesUnsent       uint64 // the driver refused them
	MovesAcknowledged uint64 // known when leaving: what the byes say
	StatesReceived    uint64
	StateGaps         uint64 // states that were not the next one

	Recent latency // since the last report
	Whole  latency
}

// latency is of round trips: a move's stamp until its pong.
type latency struct {
	Count    uint64
	P50, P99 time.Duration
}

func latencyOf(c *counts) latency {
	return latency{Count: c.total(), P50: c.quantile(0.50), P99: c.quantile(0.99)}
}
