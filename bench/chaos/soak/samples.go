//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// sample is what the servers' process uses at one moment, after a garbage collection.
type sample struct {
	At          time.Duration
	Heap        float64
	Goroutines  float64
	Descriptors float64

	Connections, Established, Ended, Hijacked, Adopted int

	Wrong string // of the events
}

// series is one of the figures. It leaks when, by its slope, it grows by more than slack and a tenth of its mean in the time that was
// sampled, or when, with everybody gone, more than left is left of it.
type series struct {
	name        string
	unit        float64
	slack, left float64
	of          func(sample) float64
}

var all = []series{
	{"heap MiB", 1 << 20, 8 << 20, 2 << 20, func(s sample) float64 { return s.Heap }},
	{"goroutines", 1, 100, 10, func(s sample) float64 { return s.Goroutines }},
	{"descriptors", 1, 100, 3, func(s sample) float64 { return s.Descriptors }},
}

// verdict prints the figures; the error says what leaks.
func verdict(w io.Writer, before sample, samples []sample, after sample, counts playerCounts) error {
	fmt.Fprintf(w, "%d connections were established, %d ended; %d were hijacked, %d adopted; players: %+v\n",
		after.Established, after.Ended, after.Hijacked, after.Adopted, counts)
	var errs []error
	if counts.Wrong > 0 {
		errs = append(errs, fmt.Errorf("%d answers were wrong: %s", counts.Wrong, counts.FirstWrong))
	}
	if after.Wrong != "" {
		errs = append(errs, errors.New(after.Wrong))
	}
	if after.Connections != 0 || after.Established != after.Ended {
		errs = append(errs, fmt.Errorf("%d connections are left; %d were established, %d ended", after.Connections, after.Established, after.Ended))
	}
	if counts.Refused > counts.Sessions/100 || counts.Answers < counts.Sessions || after.Hijacked == 0 || after.Adopted == 0 {
		errs = append(errs, fmt.Errorf("little happened: %d were hijacked, %d adopted; players: %+v", after.Hijacked, after.Adopted, counts))
	}
	steady := samples[len(samples)/4:] // the first quarter is for filling up
	if len(steady) < 3 {
		return errors.Join(append(errs, errors.New("too short to tell"))...)
	}
	span := (steady[len(steady)-1].At - steady[0].At).Minutes()
	for _, s := range all {
		mean, slope := fit(steady, s.of)
		fmt.Fprintf(w, "%-12s %s  mean %8.1f, slope %+7.2f a minute; before %.1f, afterwards %.1f\n",
			s.name, plot(samples, s.of), mean/s.unit, slope/s.unit, s.of(before)/s.unit, s.of(after)/s.unit)
		if slope*span > s.slack+mean/10 {
			errs = append(errs, fmt.Errorf("%s grow: %+.2f a minute", s.name, slope/s.unit))
		}
		if s.of(after) > s.of(before)+s.left {
			errs = append(errs, fmt.Errorf("%s: %.1f before, %.1f when everybody is gone", s.name, s.of(before)/s.unit, s.of(after)/s.unit))
		}
	}
	return errors.Join(errs...)
}

// fit is the mean, and the slope per minute of the line of least squares.
func fit(samples []sample, of func(sample) float64) (mean, slope float64) {
	n := float64(len(samples))
	var at float64
	for _, s := range samples {
		mean += of(s) / n
		at += s.At.Minutes() / n
	}
	var xy, xx float64
	for _, s := range samples {
		dx := s.At.Minutes() - at
		xy += dx * (of(s) - mean)
		xx += dx * dx
	}
	return mean, xy / xx
}

// plot draws at most 60 of the samples, from 0 to the largest.
func plot(samples []sample, of func(sample) float64) string {
	const width = 60
	levels := []rune("▁▂▃▄▅▆▇█")
	most := math.SmallestNonzeroFloat64
	for _, s := range samples {
		most = max(most, of(s))
	}
	var b strings.Builder
	for i := range min(width, len(samples)) {
		v := of(samples[i*len(samples)/min(width, len(samples))])
		b.WriteRune(levels[min(int(v/most*float64(len(levels))), len(levels)-1)])
	}
	return b.String()
}
