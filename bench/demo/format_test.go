package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestThousands(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 12345: "12,345", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(n))
	}
}

func TestViewsKeepTheirColumns(t *testing.T) {
	small := row{phase: playing, elapsed: time.Second, length: time.Minute}
	large := row{
		phase: connecting, elapsed: 100 * time.Second, played: time.Hour, length: time.Minute,
		connections: 99_999, established: 99_999, disconnected: 99_999,
		rates:     rates{packetsIn: 1e6 - 1, packetsOut: 1e6 - 1, megabytesIn: 999, megabytesOut: 999, cores: 63.99},
		roundTrip: latency{Count: 1, P50: 9999 * time.Millisecond, P99: 9999 * time.Millisecond},
		perConn:   99_999, goroutines: 199_999,
	}

	var text strings.Builder
	table := &lines{out: &text}
	table.show(small)
	table.show(large)
	rows := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	require.Len(t, rows, 4)
	for _, r := range rows {
		require.Len(t, r, len(rows[0]), "%q", r)
	}

	text.Reset()
	live := &block{out: &text}
	live.show(small)
	height := strings.Count(text.String(), "\n")
	live.show(large)
	require.Equal(t, 2*height, strings.Count(text.String(), "\n"))
	for _, r := range strings.Split(text.String(), "\n") {
		r = strings.TrimSuffix(strings.TrimPrefix(r, "\r"), "\x1b[K")
		require.LessOrEqual(t, len(r), 80, "%q", r)
	}
}
