package bench_test

import (
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

// TestSteadyStateAllocatesNothing is over the whole process of the server: the loops, the flushers and the callers.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool drops some of what it is given")
	}
	for _, l := range bench.SteadyLoads() {
		t.Run(l.Name, func(t *testing.T) {
			step := l.Start(t, loopImpl())
			for range 2 {
				step()
			}
			runtime.GC()
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
			step()
			var before, after runtime.MemStats
			packets := uint64(0)
			runtime.ReadMemStats(&before)
			for began := time.Now(); packets < leastPackets && time.Since(began) < 30*time.Second; {
				packets += step()
			}
			runtime.ReadMemStats(&after)
			allocations := after.Mallocs - before.Mallocs
			t.Logf("%d allocations, %d bytes, for %d packets", allocations, after.TotalAlloc-before.TotalAlloc, packets)
			require.GreaterOrEqual(t, packets, uint64(leastPackets))
			require.Less(t, float64(allocations)/float64(packets), 0.01)
		})
	}
}

func TestEventDispatchAllocatesNothing(t *testing.T) {
	var bus driver.EventBus
	for range 16 {
		bus.Subscribe(driver.SubscriberFuncs{})
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { bus.DispatchEstablished(driver.Event{}, nil) }))
}
