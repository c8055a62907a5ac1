package load_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/bench/load"
)

func TestCheckLimitsSaysWhatIsTooLowAndWhatItAllows(t *testing.T) {
	const absurd = 1 << 40
	shortages, most := load.CheckLimits(absurd, 10_000)
	require.NotEmpty(t, shortages)
	require.Equal(t, "RLIMIT_NOFILE", shortages[0].Limit)
	require.Less(t, shortages[0].Have, shortages[0].Need)
	require.Contains(t, shortages[0].String(), "ulimit -n")
	require.Positive(t, most)

	shortages, fits := load.CheckLimits(most, 10_000)
	require.Empty(t, shortages)
	require.Equal(t, most, fits)
}

func TestCheckLimitsLetsFewConnectionsPass(t *testing.T) {
	shortages, most := load.CheckLimits(10, 1)
	require.Empty(t, shortages)
	require.Equal(t, 10, most)
}
