package bench_test

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/bench"
	"gridstream/driver"
)

// leastPackets is how many there are at least, so that what the test allocates itself does not count.
const leastPackets = 20_000

// attempts are for pools to learn what is steady: they grow where more buffers are in use at once than ever before, and bytebufferpool looks
// every 42,000 buffers which sizes are common, and until then drops what was not with the load before.
const attempts = 100

// TestSteadyStateAllocatesNothing is over the whole process of the server: the loops, the flushers and the callers. Of several attempts
// one must do without.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool drops some of what it is given")
	}
	for _, l := range bench.SteadyLoads() {
		t.Run(l.Name, func(t *testing.T) {
			step := l.Start(t, loopImpl())
			step()
			runtime.GC()
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
			least := math.Inf(1)
			for attempt := 0; attempt < attempts && least > l.Allowed; attempt++ {
				allocations, packets := allocationsIn(t, step)
				t.Logf("%d allocations for %d packets", allocations, packets)
				least = min(least, float64(allocations)/float64(packets))
			}
			require.LessOrEqual(t, least, l.Allowed)
		})
	}
}

func allocationsIn(t *testing.T, step func() uint64) (allocations, packets uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for began := time.Now(); packets < leastPackets && time.Since(began) < 30*time.Second; {
		packets += step()
	}
	runtime.ReadMemStats(&after)
	require.GreaterOrEqual(t, packets, uint64(leastPackets))
	return after.Mallocs - before.Mallocs, packets
}

func TestEventDispatchAllocatesNothing(t *testing.T) {
	var bus driver.EventBus
	for range 16 {
		bus.Subscribe(driver.SubscriberFuncs{})
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { bus.DispatchEstablished(driver.Event{}, nil) }))
}
