package bench

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
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

// exchange is what each connection has done before it is idle.
type exchange struct {
	name   string
	size   int // of the packet that was echoed
	record int // most of it in one TLS record; 0: as much as TLS allows
}

var (
	smallPacket = exchange{"packet", 64, 0}
	// A frame of 16 KiB. The driver's own clients put it into records of 3,000 bytes; others, into one.
	inSmallRecords = exchange{"16KiB-in-3000B-records", 16<<10 - 2, 3000}
	inOneRecord    = exchange{"16KiB-in-one-record", 16<<10 - 2, 0}
)

// idleCost is what one of n idle connections costs, in bytes of heap and stack, after e.
func idleCost(tb testing.TB, impl string, secure bool, n int, e exchange) (perConn float64, goroutines int) {
	tb.Helper()
	s := startServer(tb, impl, serverOptions{id: identityFor(secure)})
	defer s.close()
	before, goroutinesBefore := inUse()
	load := startClients(tb, role{Kind: "echo", Addr: s.addr, TLS: secure, Conns: n, Size: e.size, Record: e.record})
	defer load.end()
	require.Equal(tb, n, s.conns())
	after, goroutinesAfter := inUse()
	return (float64(after) - float64(before)) / float64(n), goroutinesAfter - goroutinesBefore
}

// skipWhereMemoryIsNotTold: the race detector adds to what is allocated, and few connections tell nothing.
func skipWhereMemoryIsNotTold(t *testing.T) {
	t.Helper()
	if testing.Short() || raceEnabled {
		t.Skip("thousands of connections, and their memory")
	}
}

func TestIdleConnectionsCostUnderAKilobyteAndNoGoroutine(t *testing.T) {
	skipWhereMemoryIsNotTold(t)
	perConn, goroutines := idleCost(t, "loop", false, 9000, smallPacket)
	t.Logf("%.0f B of heap and stack per idle connection, %d goroutines more", perConn, goroutines)
	require.LessOrEqual(t, perConn, 1000.0)
	require.LessOrEqual(t, goroutines, 2)
}

func TestIdleTLSConnectionsCostHalfOfCryptoTLSWithAGoroutineEach(t *testing.T) {
	skipWhereMemoryIsNotTold(t)
	perConn, goroutines := idleCost(t, "loop", true, 5000, smallPacket)
	stdlib, _ := idleCost(t, "stdlib", true, 5000, smallPacket)
	t.Logf("%.0f B of heap and stack per idle connection, %d goroutines more; stdlib %.0f B", perConn, goroutines, stdlib)
	require.LessOrEqual(t, perConn, 7600.0)
	require.LessOrEqual(t, goroutines, 2)
	require.LessOrEqual(t, perConn, stdlib/2)
}

// BenchmarkIdleMemory is the heap and stack that an idle connection holds after it had a packet echoed.
func BenchmarkIdleMemory(b *testing.B) {
	for _, p := range []struct {
		conns  int
		secure bool
		after  exchange
	}{
		{1000, false, smallPacket},
		{9000, false, smallPacket},
		{5000, true, smallPacket},
		{5000, true, inSmallRecords},
		{5000, true, inOneRecord},
	} {
		n := scaled(p.conns)
		name := fmt.Sprintf("conns=%d/tls=%s/after=%s/", n, onOff(p.secure), p.after.name)
		forEachImpl(b, name, func(b *testing.B, impl string) {
			var perConn float64
			for b.Loop() {
				perConn, _ = idleCost(b, impl, p.secure, n, p.after)
			}
			b.ReportMetric(perConn, "B/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}
