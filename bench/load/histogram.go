package load

import "math/bits"

// Histogram counts durations in buckets that are at most 1/32 of their value wide. One goroutine at a time.
type Histogram struct {
	buckets [2048]uint64
	count   uint64
}

// Add counts a duration in nanoseconds.
func (h *Histogram) Add(ns int64) {
	v := uint64(max(ns, 0))
	shift := max(bits.Len64(v)-6, 0)
	h.buckets[uint64(shift)*32+v>>shift]++
	h.count++
}

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.count }

// Reset forgets them.
func (h *Histogram) Reset() { *h = Histogram{} }

// Merge adds what another process counted.
func (h *Histogram) Merge(other Sparse) {
	for i, n := range other {
		h.buckets[i] += n
		h.count += n
	}
}

// Sparse is a histogram's buckets that are not empty: what goes from process to process.
type Sparse map[int]uint64

// Sparse is a copy of h.
func (h *Histogram) Sparse() Sparse {
	s := make(Sparse)
	for i, n := range h.buckets {
		if n > 0 {
			s[i] = n
		}
	}
	return s
}

// Quantile is the middle of the bucket in which the q-th part of all durations ends, in nanoseconds; 0 where there are none.
func (h *Histogram) Quantile(q float64) int64 {
	left := uint64(q * float64(h.count))
	for i, n := range h.buckets {
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
