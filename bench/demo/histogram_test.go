package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHistogramQuantilesAreWithinABucket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h histogram
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		h.record(values[i])
	}
	slices.Sort(values)
	c := h.snapshot()
	require.Equal(t, uint64(len(values)), c.total())
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		exact := values[int(q*float64(len(values)))]
		require.InDelta(t, float64(exact), float64(c.quantile(q)), float64(exact)/64+1, "quantile %v", q)
	}
}

func TestHistogramSince(t *testing.T) {
	var h histogram
	h.record(time.Second)
	before := h.snapshot()
	h.record(time.Millisecond)
	recent := h.snapshot().since(before)
	require.Equal(t, uint64(1), recent.total())
	require.InDelta(t, float64(time.Millisecond), float64(recent.quantile(0.5)), float64(time.Millisecond)/64)
}

func TestHistogramBuckets(t *testing.T) {
	require.Zero(t, new(counts).quantile(0.5))
	for v := range uint64(1 << 16) {
		i := bucket(v)
		require.LessOrEqual(t, v, ceiling(i))
		require.True(t, i == 0 || ceiling(i-1) < v)
	}
	require.Less(t, bucket(1<<63-1), buckets)
}
