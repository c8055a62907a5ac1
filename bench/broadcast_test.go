package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkBroadcast is packets to every connection, 30 at once; the next ones when all have arrived.
func BenchmarkBroadcast(b *testing.B) {
	const size, burst = 64, 30
	for _, conns := range []int{1000, 9000} {
		n := scaled(conns)
		name := fmt.Sprintf("conns=%d/burst=%d/size=%d/", n, burst, size)
		forEachImpl(b, name, func(b *testing.B, impl string) {
			s := startServer(b, impl, serverOptions{broadcasts: true})
			defer s.close()
			load := startClients(b, role{Kind: "sink", Addr: s.addr, Conns: n, Size: size})
			defer load.end()
			packet := make([]byte, size)
			deliver := func() {
				load.do("await", burst*(2+size))
				for range burst {
					require.Equal(b, n, s.broadcast(packet))
				}
				load.answer()
			}
			deliver() // once for buffers and stacks
			before, began := processorTime(), time.Now()
			for b.Loop() {
				deliver()
			}
			deliveries := float64(b.N * burst * n)
			used := processorTime() - before
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(deliveries/time.Since(began).Seconds(), "deliveries/s")
			b.ReportMetric(float64(used.Nanoseconds())/1e3/deliveries, "cpu-µs/op")
		})
	}
}
