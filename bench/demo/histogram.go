package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets that are at most 1/64 of their value wide. Any goroutine may record.
type histogram struct {
	counts [buckets]atomic.Uint64
}

const (
	subBits = 6
	buckets = (64 - subBits) << subBits
)

// counts is a histogram at one moment.
type counts [buckets]uint64

func (h *histogram) record(d time.Duration) { h.counts[bucket(uint64(max(d, 0)))].Add(1) }

func (h *histogram) snapshot() *counts {
	c := new(counts)
	for i := range h.counts {
		c[i] = h.counts[i].Load()
	}
	return c
}

// since is what was recorded after the earlier snapshot before.
func (c *counts) since(before *counts) *counts {
	d := new(counts)
	for i := range c {
		d[i] = c[i] - before[i]
	}
	return d
}

func (c *counts) total() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

// quantile is the least duration that the share q of what was recorded does not exceed; 0 where there is nothing.
func (c *counts) quantile(q float64) time.Duration {
	rank := uint64(q * float64(c.total()))
	for i, v := range c {
		if v > rank {
			return time.Duration(ceiling(i))
		}
		rank -= v
	}
	return 0
}

// bucket numbers values below 1<<subBits by themselves, the others by their exponent and their leading bits.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// ceiling is the largest value of a bucket.
func ceiling(i int) uint64 {
	shift := max(i>>subBits-1, 0)
	return uint64(i-shift<<subBits+1)<<shift - 1
}
