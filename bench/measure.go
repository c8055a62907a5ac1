package bench

import (
	"cmp"
	"fmt"
	"syscall"
	"testing"
	"time"

	"gridstream/bench/load"
)

// Scaled is n, or less where each benchmark is only to be run once, with -short.
func Scaled(n int) int {
	if testing.Short() {
		return max(n/50, 2)
	}
	return n
}

// window is one iteration of a benchmark that lets a load of so many connections run: several round trips of each, however many.
func window(conns int) time.Duration {
	if testing.Short() {
		return 10 * time.Millisecond
	}
	return 100*time.Millisecond + time.Duration(conns)*50*time.Microsecond
}

// warmUp is how long a load runs before it is measured: buffers and stacks have grown then, and who began is no longer ahead of the others.
func warmUp(conns int) time.Duration { return window(conns) + window(0) }

// eventually is how long a server may take for what it has to do.
const eventually = time.Minute

// forEach runs a benchmark once for each server that does what o asks, one after the other.
func forEach(b *testing.B, impls []Impl, name string, o Options, run func(b *testing.B, s *Server)) {
	for i := range impls {
		impl := impls[(First+i)%len(impls)]
		if impl.Only != nil && !impl.Only(o) {
			continue
		}
		b.Run(fmt.Sprintf("%simpl=%s", name, impl.Name), func(b *testing.B) {
			run(b, start(b, impl, o))
		})
	}
}

func start(tb testing.TB, impl Impl, o Options) *Server {
	tb.Helper()
	s, err := impl.Start(o)
	must(tb, err)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("closing %s: %v", impl.Name, err)
		}
	})
	return s
}

// clients starts a fleet, which leaves when the test ends, before its server is closed.
func clients(tb testing.TB, s *Server, r load.Role) *load.Fleet {
	tb.Helper()
	r.Addr, r.Size = s.Addr, cmp.Or(r.Size, packetSize)
	f, err := load.Start(r)
	must(tb, err)
	tb.Cleanup(func() {
		if err := f.End(); err != nil {
			tb.Errorf("the clients' process: %v", err)
		}
	})
	return f
}

// connected is clients that are connected.
func connected(tb testing.TB, s *Server, r load.Role) *load.Fleet {
	tb.Helper()
	f := clients(tb, s, r)
	must(tb, f.Connect())
	if r.Kind == load.Echo || r.Kind == load.Sink {
		waitFor(tb, func() bool { return s.Connections() == r.Conns }, "%d connections are established", r.Conns)
	}
	return f
}

func must(tb testing.TB, err error) {
	if err != nil {
		tb.Helper()
		tb.Fatal(err)
	}
}

// waitFor asks in ever longer intervals, so that asking costs little.
func waitFor(tb testing.TB, done func() bool, format string, args ...any) {
	tb.Helper()
	began := time.Now()
	for !done() {
		waited := time.Since(began)
		if waited > eventually {
			tb.Fatalf("not in time: "+format, args...)
		}
		time.Sleep(min(max(waited/50, 20*time.Microsecond), time.Millisecond))
	}
}

// processorTime is what this process, the server's, has used, in user space and in the kernel.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// run lets a load run for as long as the benchmark wants, and returns what it came to, and the processor time of the server.
func run(b *testing.B, f *load.Fleet) (load.Result, time.Duration) {
	b.Helper()
	must(b, f.Start())
	time.Sleep(warmUp(f.Conns()))
	must(b, f.Mark())
	before := processorTime()
	for b.Loop() {
		time.Sleep(window(f.Conns()))
	}
	used := processorTime() - before
	r, err := f.Stop()
	must(b, err)
	if r.Count == 0 && !testing.Short() { // a short window may end before the first answer
		b.Fatal("nothing was answered in time")
	}
	return r, used
}

// report reports r and the processor time per operation, not ns/op: an iteration is a window.
func report(b *testing.B, r load.Result, used time.Duration, unit string) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(r.Rate(), unit+"/s")
	reportCost(b, used, r.Count)
	reportLatency(b, r)
}

// reportCost reports the server's processor time for one of n.
func reportCost(b *testing.B, used time.Duration, n uint64) {
	b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(max(n, 1)), "cpu-µs/op")
}

func reportLatency(b *testing.B, r load.Result) {
	b.ReportMetric(float64(r.Latency.Quantile(0.5)), "p50-ns")
	b.ReportMetric(float64(r.Latency.Quantile(0.99)), "p99-ns")
	b.ReportMetric(float64(r.Latency.Quantile(0.999)), "p99.9-ns")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
