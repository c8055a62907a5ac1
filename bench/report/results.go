package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sample is one line of results.
type sample struct {
	file   string // a suite's round: what may be compared
	base   string // the benchmark's name without impl=…
	impl   string
	values map[string]float64 // by unit
}

// resultSet is everything that is stored.
type resultSet struct {
	machine map[string]string
	samples []sample
}

func readResults(dir string) (*resultSet, error) {
	set := &resultSet{machine: make(map[string]string)}
	if text, err := os.ReadFile(filepath.Join(dir, "machine.txt")); err == nil {
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ": ")
			set.machine[name] = strings.TrimSpace(value)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*-*.txt"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if s, ok := parseLine(line); ok {
				s.file = filepath.Base(file)
				set.samples = append(set.samples, s)
			}
		}
	}
	if len(set.samples) == 0 {
		return nil, fmt.Errorf("no results in %s", dir)
	}
	return set, nil
}

var procs = regexp.MustCompile(`-\d+$`)

// parseLine reads "BenchmarkName/key=value/impl=name-8  10  1.5 unit  …".
func parseLine(line string) (sample, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return sample{}, false
	}
	s := sample{values: make(map[string]float64)}
	var base []string
	for _, part := range strings.Split(procs.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), ""), "/") {
		if impl, found := strings.CutPrefix(part, "impl="); found {
			s.impl = impl
		} else {
			base = append(base, part)
		}
	}
	s.base = strings.Join(base, "/")
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return sample{}, false
		}
		s.values[fields[i+1]] = v
	}
	return s, s.impl != ""
}

// bases are the benchmarks whose names begin with prefix, in the order in which they ran.
func (r *resultSet) bases(prefix string) []string {
	var bases []string
	for _, s := range r.samples {
		if strings.HasPrefix(s.base, prefix) && !slices.Contains(bases, s.base) {
			bases = append(bases, s.base)
		}
	}
	return bases
}

// impls are the servers that have results for base, in the order of implOrder.
func (r *resultSet) impls(base string) []string {
	var impls []string
	for _, s := range r.samples {
		if s.base == base && !slices.Contains(impls, s.impl) {
			impls = append(impls, s.impl)
		}
	}
	slices.SortStableFunc(impls, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return impls
}

var implOrder = []string{"loop", "stdnet", "gnet", "nbio", "netpoll", "stdlib-inline", "stdlib-inline-each", "stdlib-two-goroutines"}

func rank(impl string) int {
	if i := slices.Index(implOrder, impl); i >= 0 {
		return i
	}
	return len(implOrder)
}

// spread is the median of several values, and their range. n == 0: none.
type spread struct {
	median, min, max float64
	n                int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	mid := len(values) / 2
	median := values[mid]
	if len(values)%2 == 0 {
		median = (values[mid-1] + values[mid]) / 2
	}
	return spread{median, values[0], values[len(values)-1], len(values)}
}

// value is what impl came to in all rounds.
func (r *resultSet) value(base, impl, unit string) spread {
	var values []float64
	for _, s := range r.samples {
		if v, ok := s.values[unit]; ok && s.base == base && s.impl == impl {
			values = append(values, v)
		}
	}
	return spreadOf(values)
}

// ratio is impl's value divided by other's, in the rounds that have both.
func (r *resultSet) ratio(base, impl, other, unit string) spread {
	var ratios []float64
	for _, a := range r.samples {
		for _, b := range r.samples {
			if a.file == b.file && a.base == base && b.base == base && a.impl == impl && b.impl == other && b.values[unit] > 0 {
				ratios = append(ratios, a.values[unit]/b.values[unit])
			}
		}
	}
	return spreadOf(ratios)
}

// parameter is the number in "/name=number" of a benchmark's name.
func parameter(base, name string) (int, bool) {
	for part := range strings.SplitSeq(base, "/") {
		if text, found := strings.CutPrefix(part, name+"="); found {
			n, err := strconv.Atoi(text)
			return n, err == nil
		}
	}
	return 0, false
}
