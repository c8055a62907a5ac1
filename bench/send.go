package bench

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gridstream/bench/load"
)

// SendFromGoroutines is packets that goroutines outside the event loops send as fast as there is room, to one connection
// or to one of very many each.
func SendFromGoroutines(b *testing.B, impls []Impl) {
	for _, conns := range []int{1, 10_000} {
		for _, goroutines := range []int{1, 8, 64} {
			n := conns
			if n > 1 {
				n = Scaled(n)
			}
			name := fmt.Sprintf("goroutines=%d/conns=%d/size=%d/", goroutines, n, packetSize)
			forEach(b, impls, name, Options{Broadcasts: true}, func(b *testing.B, s *Server) {
				sendFromGoroutines(b, s, goroutines, n)
			})
		}
	}
}

func sendFromGoroutines(b *testing.B, s *Server, goroutines, conns int) {
	f := connected(b, s, load.Role{Kind: load.Sink, Conns: conns, Senders: goroutines})
	to := s.Senders()
	var sent atomic.Uint64
	var running atomic.Bool
	var work sync.WaitGroup
	errs := make([]error, goroutines)
	running.Store(true)
	for g := range goroutines {
		work.Go(func() {
			packet := make([]byte, packetSize)
			seq := make([]int, conns)
			order := rand.Perm(conns) // so that they do not follow one another
			n := 0
			for ; running.Load() && errs[g] == nil; n++ {
				c := order[n%conns]
				load.Fill(packet, g, seq[c])
				seq[c]++
				errs[g] = to[c](packet)
			}
			sent.Add(uint64(n))
		})
	}
	time.Sleep(warmUp(conns))
	must(b, f.Mark())
	before := processorTime()
	for b.Loop() {
		time.Sleep(window(conns))
	}
	used := processorTime() - before
	r, err := f.Stop() // what has arrived
	running.Store(false)
	work.Wait()
	must(b, err)
	for _, err := range errs {
		must(b, err)
	}
	must(b, f.ExpectInAll(sent.Load()))
	must(b, f.Await())
	if r.Count == 0 && !testing.Short() {
		b.Fatal("nothing arrived in time")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(r.Rate(), "msgs/s")
	reportCost(b, used, r.Count)
}
