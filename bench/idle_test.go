package bench

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// inUse is the heap and the stacks in use, and the goroutines, when all is collected.
func inUse() (bytes uint64, goroutines int) {
	for range 3 {
		runtime.GC() // sync.Pool lets go of what it holds in two cycles
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
}

// idleCost is what one of n idle connections costs, in bytes of heap and stack, after each has exchanged a packet.
func idleCost(tb testing.TB, n int) (perConn float64, goroutines int) {
	tb.Helper()
	d, err := driver.New(driver.Config{OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }})
	require.NoError(tb, err)
	defer d.Close()
	require.NoError(tb, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	require.NoError(tb, d.StartListen(0))
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.Port())

	before, goroutinesBefore := inUse()
	stop := startIdleClients(tb, addr.String(), n)
	defer stop()
	require.Equal(tb, n, d.NumberOfConnections())
	after, goroutinesAfter := inUse()
	return (float64(after) - float64(before)) / float64(n), goroutinesAfter - goroutinesBefore
}

func TestIdleConnectionsCostUnderAKilobyteAndNoGoroutine(t *testing.T) {
	if testing.Short() {
		t.Skip("9,000 connections")
	}
	perConn, goroutines := idleCost(t, 9000)
	t.Logf("%.0f B of heap and stack per idle connection, %d goroutines more", perConn, goroutines)
	require.LessOrEqual(t, perConn, 1000.0)
	require.LessOrEqual(t, goroutines, 2)
}

func BenchmarkIdleMemory(b *testing.B) {
	for _, n := range []int{1000, 9000} {
		b.Run(fmt.Sprintf("conns=%d/tls=off/impl=loop", n), func(b *testing.B) {
			var perConn float64
			for b.Loop() {
				perConn, _ = idleCost(b, n)
			}
			b.ReportMetric(perConn, "B/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}
