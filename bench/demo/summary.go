package main

import (
	"fmt"
	"io"
)

// summary is what a run comes to.
type summary struct {
	interrupted bool
	zones       int
	players     report // the last one
	server      sample
	rates       rates // while playing
	applied     uint64
	misordered  uint64
	statesSent  uint64
	perConn     int
	goroutines  int
}

func (d *demo) summarize(interrupted bool) *summary {
	return &summary{
		interrupted: interrupted,
		zones:       len(d.server.zones),
		players:     d.latest,
		server:      d.server.sample(),
		rates:       d.to.since(d.from),
		applied:     d.server.moves.Load(),
		misordered:  d.server.misordered.Load(),
		statesSent:  d.server.states.Load(),
		perConn:     d.perConn,
		goroutines:  d.routines,
	}
}

// faults are what should not have happened, a line each.
func (s *summary) faults() []string {
	var faults []string
	check := func(n uint64, what string) {
		if n > 0 {
			faults = append(faults, fmt.Sprintf("%s %s", thousands(n), what))
		}
	}
	p, stats := s.players, s.server.stats
	check(uint64(p.Failed), "players did not get in; the first: "+p.FirstFailure)
	check(uint64(p.Dropped), "players lost their connection; the first: "+p.FirstFailure)
	check(difference(p.MovesSent, s.applied), "moves lost")
	check(difference(p.MovesSent, p.MovesAcknowledged), "moves not acknowledged")
	check(s.misordered, "moves out of order")
	check(p.MovesUnsent, "moves refused by the players' driver")
	check(difference(s.statesSent, p.StatesReceived), "zone states lost")
	check(p.StateGaps, "gaps in the zone states")
	check(stats.SendsRejected, "sends rejected: outbound buffer full")
	check(stats.Panics, "panics in callbacks")
	check(uint64(stats.Connections), "connections left")
	check(difference(s.server.established, s.server.disconnected), "connect events without a disconnect event, or the reverse")
	return faults
}

func difference(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// pace is which share of the moves that were due the players got round to.
func (s *summary) pace() float64 {
	due := float64(s.players.Joined) * moveRate * s.players.Played.Seconds()
	if due < 1 {
		return 1
	}
	return float64(s.players.MovesSent) / due
}

// print is the summary for people.
func (s *summary) print(out io.Writer) {
	p := s.players
	verdict := "nothing lost"
	faults := s.faults()
	if len(faults) > 0 {
		verdict = "with faults"
	}
	if s.interrupted {
		verdict = "interrupted, " + verdict
	}
	if p.Played > 0 {
		fmt.Fprintf(out, "\n%s in %s played for %.1f s: %s\n\n",
			plural(p.Joined, "player"), plural(s.zones, "zone"), p.Played.Seconds(), verdict)
	} else {
		fmt.Fprintf(out, "\n%s had logged in, and none had moved: %s\n\n", plural(p.Joined, "player"), verdict)
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	if p.Played > 0 {
		s.printPlay(line)
	}
	line("zone states", "%s sent, %s received", thousands(s.statesSent), thousands(p.StatesReceived))
	line("events", "%s connects, %s disconnects", thousands(s.server.established), thousands(s.server.disconnected))
	for _, fault := range faults {
		line("FAULT", "%s", fault)
	}
}

// printPlay is about the time of play.
func (s *summary) printPlay(line func(name, format string, args ...any)) {
	p := s.players
	line("login", "all in after %.2f s", p.Connecting.Seconds())
	line("packets", "%s/s in, %s/s out", perSecond(s.rates.packetsIn), perSecond(s.rates.packetsOut))
	line("bytes", "%s MB/s in, %s MB/s out", megabytes(s.rates.megabytesIn), megabytes(s.rates.megabytesOut))
	line("round trip", "p50 %s, p99 %s, of %s measured by the players",
		milliseconds(p.Whole, p.Whole.P50), milliseconds(p.Whole, p.Whole.P99), thousands(p.Whole.Count))
	if s.perConn > 0 {
		line("memory", "%s bytes of heap and stack per connection, while playing", thousands(uint64(s.perConn)))
		line("goroutines", "%d", s.goroutines)
	}
	line("server CPU", "%s of a core", percent(s.rates.cores))
	line("moves", "%s sent, %s applied in order, %s acknowledged",
		thousands(p.MovesSent), thousands(s.applied-min(s.applied, s.misordered)), thousands(p.MovesAcknowledged))
	if pace := s.pace(); pace < 0.95 {
		line("", "at %s of the pace: this host cannot keep up with so many", percent(pace))
	}
}

// headline says what is about to happen.
func headline(o options) string {
	zones := (o.players + playersPerZone - 1) / playersPerZone
	over := ""
	if o.secure {
		over = " over TLS"
	}
	return fmt.Sprintf("%s in %s for %.0f s%s: each moves at %d Hz and gets the state of its zone at %d Hz\n",
		plural(o.players, "player"), plural(zones, "zone"), o.length.Seconds(), over, moveRate, stateRate)
}
