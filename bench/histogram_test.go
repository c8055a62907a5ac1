package bench

import (
	"math/bits"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// histogram counts durations in buckets of some 3 %. Any goroutine.
type histogram struct{ buckets [2048]atomic.Uint64 }

func (h *histogram) add(ns int64) {
	v := uint64(max(ns, 0))
	shift := max(bits.Len64(v)-6, 0)
	h.buckets[uint64(shift)*32+v>>shift].Add(1)
}

func (h *histogram) reset() {
	for i := range h.buckets {
		h.buckets[i].Store(0)
	}
}

func (h *histogram) count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// quantile is the middle of the bucket in which the q-th part of all durations ends.
func (h *histogram) quantile(q float64) int64 {
	left := uint64(q * float64(h.count()))
	for i := range h.buckets {
		n := h.buckets[i].Load()
		if n > left {
			if i < 64 {
				return int64(i)
			}
			shift := i/32 - 1
			return int64(i%32+32)<<shift + int64(1)<<shift/2
		}
		left -= n
	}
	return 0
}

func TestHistogramQuantilesAreWithinABucket(t *testing.T) {
	var h histogram
	require.Zero(t, h.quantile(0.5))
	for ns := range int64(100_000) {
		h.add(ns * 1000)
	}
	require.EqualValues(t, 100_000, h.count())
	for _, q := range []float64{0, 0.0005, 0.5, 0.99} {
		exact := q * 100_000_000
		require.InDelta(t, exact, h.quantile(q), exact*0.032, q)
	}
	h.reset()
	require.Zero(t, h.count())
}
