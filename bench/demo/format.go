package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// thousands groups digits: 12,345.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is "1 zone", "2 zones".
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return thousands(uint64(n)) + " " + noun
}

func perSecond(rate float64) string { return thousands(uint64(math.Round(rate))) }

func megabytes(rate float64) string { return strconv.FormatFloat(rate, 'f', 2, 64) }

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// known is n, or a dash as long as it is 0.
func known(n int) string {
	if n == 0 {
		return "-"
	}
	return thousands(uint64(n))
}

// milliseconds is d, a quantile of l, with three digits or so; a dash where l is empty.
func milliseconds(l latency, d time.Duration) string {
	ms := d.Seconds() * 1000
	switch {
	case l.Count == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
