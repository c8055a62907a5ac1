package load_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/bench/load"
)

func TestHistogramQuantilesAreWithinABucket(t *testing.T) {
	var one, h load.Histogram
	require.Zero(t, h.Quantile(0.5))
	for ns := range int64(100_000) {
		one.Add(ns * 1000)
	}
	h.Merge(one.Sparse())
	require.EqualValues(t, 100_000, h.Count())
	for _, q := range []float64{0, 0.0005, 0.5, 0.99, 0.999} {
		exact := q * 100_000_000
		require.InDelta(t, exact, h.Quantile(q), exact*0.032, q)
	}
	h.Reset()
	require.Zero(t, h.Count())
}
