package bench

import (
	"fmt"
	"testing"
	"time"

	"gridstream/bench/load"
)

// Broadcast is packets to every connection: in bursts, the next when every client has all of one, and in lockstep.
func Broadcast(b *testing.B, impls []Impl) {
	for _, p := range []struct{ conns, burst int }{{1000, 30}, {10_000, 30}, {10_000, 1}} {
		broadcast(b, impls, p.conns, p.burst, Options{Broadcasts: true}, func(s *Server) func([]byte) int { return s.Broadcast })
	}
}

// Group is Broadcast to a group that has every connection as a member.
func Group(b *testing.B, impls []Impl) {
	for _, burst := range []int{30, 1} {
		broadcast(b, impls, 10_000, burst, Options{Broadcasts: true, Group: true}, func(s *Server) func([]byte) int { return s.Group })
	}
}

func broadcast(b *testing.B, impls []Impl, conns, burst int, o Options, to func(*Server) func([]byte) int) {
	n := Scaled(conns)
	name := fmt.Sprintf("conns=%d/burst=%d/size=%d/", n, burst, packetSize)
	if burst == 1 {
		name = fmt.Sprintf("conns=%d/lockstep/size=%d/", n, packetSize)
	}
	forEach(b, impls, name, o, func(b *testing.B, s *Server) {
		send := to(s)
		f := connected(b, s, load.Role{Kind: load.Sink, Conns: n})
		packet := make([]byte, packetSize)
		seq := 0
		deliver := func() {
			must(b, f.Expect(burst))
			for range burst {
				load.Fill(packet, 0, seq)
				seq++
				if queued := send(packet); queued != n {
					b.Fatalf("a broadcast to %d of %d", queued, n)
				}
			}
			must(b, f.Await())
		}
		deliver() // for buffers and stacks
		before, began := processorTime(), time.Now()
		for b.Loop() {
			deliver()
		}
		took, used := time.Since(began), processorTime()-before
		deliveries := uint64(b.N * burst * n)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(deliveries)/took.Seconds(), "deliveries/s")
		reportCost(b, used, deliveries)
	})
}
