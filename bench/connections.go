package bench

import (
	"fmt"
	"os"
	"testing"
	"time"

	"gridstream/bench/load"
)

// perConnection is the memory that a connection takes, roughly and rather too much: in the server, in its clients, and at both ends in the
// kernel. It is for telling in advance whether there is enough.
func perConnection(impl string) uint64 {
	const clientAndKernel = 10_000
	if impl == "loop" {
		return 1500 + clientAndKernel
	}
	return 12_000 + clientAndKernel
}

// Connections makes conns connections, as many of them as the system's limits allow, and measures what they cost, and the round trips of
// 1,000 of them, a packet each second. It says on stderr what is too low, and how far it is.
func Connections(b *testing.B, impls []Impl, conns int) {
	for _, impl := range impls {
		n := conns
		shortages, most := load.CheckLimits(conns, perConnection(impl.Name))
		if len(shortages) > 0 {
			n = most
			fmt.Fprintf(os.Stderr, "impl=%s: the limits do not allow %d connections. Too low are (docs/tuning.md):\n", impl.Name, conns)
			for _, s := range shortages {
				fmt.Fprintf(os.Stderr, "  %v\n", s)
			}
			fmt.Fprintf(os.Stderr, "going on with %d connections\n", n)
		}
		b.Run(fmt.Sprintf("conns=%d/impl=%s", n, impl.Name), func(b *testing.B) {
			connections(b, impl, n)
		})
	}
}

func connections(b *testing.B, impl Impl, n int) {
	const pace = time.Second
	s := start(b, impl, Options{})
	f := clients(b, s, load.Role{Kind: load.Echo, Conns: n, Active: min(n, 1000), Pace: pace})
	before, processorBefore, began := inUse(), processorTime(), time.Now()
	err := withProgress(s, n, f.Connect)
	took, used := time.Since(began), processorTime()-processorBefore
	must(b, err)
	waitFor(b, func() bool { return s.Connections() == n }, "%d connections are established", n)
	cost := inUse().since(before, n)

	must(b, f.Start())
	time.Sleep(pace)
	must(b, f.Mark())
	for b.Loop() {
		time.Sleep(5 * pace)
	}
	r, err := f.Stop()
	must(b, err)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(n)/took.Seconds(), "conns/s")
	b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(n), "connect-cpu-µs/conn")
	cost.report(b)
	reportLatency(b, r)
}

// withProgress does connect and tells each second on stderr how far it is.
func withProgress(s *Server, n int, connect func() error) error {
	done := make(chan error, 1)
	go func() { done <- connect() }()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	last := 0
	for {
		select {
		case err := <-done:
			fmt.Fprintln(os.Stderr)
			return err
		case <-second.C:
			now := s.Connections()
			fmt.Fprintf(os.Stderr, "\r%d of %d connections, %d/s      ", now, n, now-last)
			last = now
		}
	}
}
