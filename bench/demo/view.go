package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// row is what there is to see of one second.
type row struct {
	phase                     phase
	elapsed                   time.Duration
	played, length            time.Duration
	connections               int
	established, disconnected uint64 // events so far
	rates                     rates
	roundTrip                 latency
	perConn                   int
	goroutines                int
}

// view shows rows.
type view interface {
	show(row)
	end()
}

// newView is a block that renews itself on a terminal, else a line for each row.
func newView(out *os.File) view {
	if isTerminal(out) {
		return &block{out: out}
	}
	return &lines{out: out}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// lines is a table with a line per row.
type lines struct {
	out    io.Writer
	headed bool
}

func (l *lines) show(r row) {
	if !l.headed {
		l.headed = true
		fmt.Fprintf(l.out, "%5s  %-10s  %17s  %19s  %15s  %17s  %6s  %10s  %6s\n", "", "",
			"connections", "packets/s", "MB/s", "round trip", "bytes/", "", "server")
		fmt.Fprintf(l.out, "%5s  %-10s  %8s %8s  %9s %9s  %7s %7s  %8s %8s  %6s  %10s  %6s\n", "time", "phase",
			"now", "closed", "in", "out", "in", "out", "p50", "p99", "conn", "goroutines", "CPU")
	}
	fmt.Fprintf(l.out, "%5s  %-10s  %8s %8s  %9s %9s  %7s %7s  %8s %8s  %6s  %10d  %6s\n",
		fmt.Sprintf("%.0f s", r.elapsed.Seconds()), r.phase,
		thousands(uint64(r.connections)), thousands(r.disconnected),
		perSecond(r.rates.packetsIn), perSecond(r.rates.packetsOut),
		megabytes(r.rates.megabytesIn), megabytes(r.rates.megabytesOut),
		milliseconds(r.roundTrip, r.roundTrip.P50), milliseconds(r.roundTrip, r.roundTrip.P99),
		known(r.perConn), r.goroutines, percent(r.rates.cores))
}

func (l *lines) end() {}

// block is a table that each row overwrites.
type block struct {
	out    io.Writer
	height int // of what is there
}

func (b *block) show(r row) {
	var text strings.Builder
	if b.height > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.height) // up
	}
	b.height = 0
	line := func(format string, args ...any) {
		fmt.Fprintf(&text, "\r"+format+"\x1b[K\n", args...) // clear to the end of the line
		b.height++
	}
	pair := func(name, left, leftUnit, right, rightUnit string) {
		line("  %-12s %10s %-10s %10s %s", name, left, leftUnit, right, rightUnit)
	}
	line("  %-12s %s", r.phase, progress(r))
	line("")
	line("  %-12s %10s", "connections", thousands(uint64(r.connections)))
	pair("events", thousands(r.established), "connects", thousands(r.disconnected), "disconnects")
	pair("packets/s", perSecond(r.rates.packetsIn), "in", perSecond(r.rates.packetsOut), "out")
	pair("MB/s", megabytes(r.rates.megabytesIn), "in", megabytes(r.rates.megabytesOut), "out")
	pair("round trip", milliseconds(r.roundTrip, r.roundTrip.P50), "p50", milliseconds(r.roundTrip, r.roundTrip.P99), "p99")
	line("  %-12s %10s bytes of heap and stack per connection", "memory", known(r.perConn))
	line("  %-12s %10d", "goroutines", r.goroutines)
	line("  %-12s %10s of a core", "server CPU", percent(r.rates.cores))
	_, _ = io.WriteString(b.out, text.String())
}

// end leaves the last row on the screen.
func (b *block) end() {}

const barWidth = 40

// progress is how much of the time of play is over.
func progress(r row) string {
	played := min(r.played, r.length)
	done := int(barWidth * played / r.length)
	return fmt.Sprintf("[%s%s] %.0f of %.0f s", strings.Repeat("#", done), strings.Repeat(".", barWidth-done),
		played.Seconds(), r.length.Seconds())
}
