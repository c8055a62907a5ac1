package main

import (
	"context"
	"time"
)

// slice is how finely the work of a period is spread over it.
const slice = 2 * time.Millisecond

// pace calls f for the slices 0 … period/slice-1 of each period, in turn, until ctx is done. After a stall it makes up
// for at most one period.
func pace(ctx context.Context, period time.Duration, f func(n int)) {
	slices := int(period / slice)
	ticker := time.NewTicker(slice)
	defer ticker.Stop()
	start := time.Now()
	for next := 0; ctx.Err() == nil; {
		due := int(time.Since(start) / slice)
		next = max(next, due-slices+1)
		for ; next <= due; next++ {
			f(next % slices)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
