package bench_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/bench"
)

// skipWhereMemoryIsNotTold: the race detector adds to what is allocated, and few connections tell nothing.
func skipWhereMemoryIsNotTold(t *testing.T) {
	t.Helper()
	if testing.Short() || raceEnabled {
		t.Skip("thousands of connections, and their memory")
	}
}

func loopImpl() bench.Impl { return bench.Drivers()[0] }

func TestIdleConnectionsCostUnderAKilobyteAndNoGoroutine(t *testing.T) {
	skipWhereMemoryIsNotTold(t)
	const conns = 9000
	cost := bench.IdleCost(t, loopImpl(), false, conns, bench.SmallPacket)
	t.Logf("%.0f B of heap and stack per idle connection", cost.HeapAndStack)
	require.LessOrEqual(t, cost.HeapAndStack, 1000.0)
	require.LessOrEqual(t, cost.Goroutines, 2.0/conns)
}

func TestIdleTLSConnectionsCostHalfOfCryptoTLSWithAGoroutineEach(t *testing.T) {
	skipWhereMemoryIsNotTold(t)
	const conns = 3000
	cost := bench.IdleCost(t, loopImpl(), true, conns, bench.SmallPacket)
	stdlib := bench.IdleCost(t, bench.Inline(), true, conns, bench.SmallPacket)
	t.Logf("%.0f B of heap and stack per idle connection; stdlib %.0f B", cost.HeapAndStack, stdlib.HeapAndStack)
	require.LessOrEqual(t, cost.HeapAndStack, 7600.0)
	require.LessOrEqual(t, cost.Goroutines, 2.0/conns)
	require.LessOrEqual(t, cost.HeapAndStack, stdlib.HeapAndStack/2)
}
