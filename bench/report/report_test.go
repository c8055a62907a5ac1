package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someResults = `goos: linux
BenchmarkIdleMemory/conns=1000/tls=off/after=packet/impl=loop-2   1   1500 B/conn   2000 RSS-B/conn   3000 kernel-B/conn
BenchmarkIdleMemory/conns=2000/tls=off/after=packet/impl=loop-2   1   1250 B/conn   1500 RSS-B/conn   3000 kernel-B/conn
BenchmarkEcho/conns=1000/depth=1/size=64/tls=off/impl=loop-2      5   50000 msgs/s   4 cpu-µs/op   1000000 p99-ns
BenchmarkEcho/conns=1000/depth=1/size=64/tls=off/impl=stdnet-2    5   40000 msgs/s   8 cpu-µs/op   4000000 p99-ns
BenchmarkEcho/conns=100/depth=1/size=64/tls=off/impl=loop-2       5   40000 msgs/s   8 cpu-µs/op   1000000 p99-ns
BenchmarkEcho/conns=100/depth=1/size=64/tls=off/impl=stdnet-2     5   50000 msgs/s   4 cpu-µs/op   1000000 p99-ns
PASS
`

func someSet(t *testing.T) *resultSet {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bench-1.txt", "bench-2.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(someResults), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := readResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	set := someSet(t)
	if got := set.ratio("Echo/conns=1000/depth=1/size=64/tls=off", "loop", "stdnet", "cpu-µs/op"); got != (spread{0.5, 0.5, 0.5, 2}) {
		t.Fatal(got)
	}
}

func TestTheFitFindsTheCostOfAConnectionBesideAFixedOne(t *testing.T) {
	l, ok := fit(someSet(t).totals("IdleMemory/", "/tls=off/after=packet", "loop", "B/conn"))
	if !ok || math.Abs(l.slope-1000) > 1e-6 || math.Abs(l.offset-500_000) > 1e-3 {
		t.Fatal(l, ok)
	}
}

func TestTheDocumentSaysWhereOthersAreAhead(t *testing.T) {
	doc := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := writeDocument(someSet(t), doc); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `Echo/conns=100/depth=1/size=64/tls=off` | rate 0.80 (0.80–0.80), CPU 2.00 (2.00–2.00) |",
		"| loop | 1,000 B | 1.00 GB | 1.00 GB |", "3,000 B a connection, 3.00 GB for a million",
		"(benchmarks/rate.svg)",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("not there: %s", want)
		}
	}
	if _, err := os.Stat(strings.TrimSuffix(doc, ".md") + "/memory.svg"); err != nil {
		t.Fatal(err)
	}
}

func TestFiguresHaveThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0.123: "0.12", 9.99: "9.99", 12.34: "12.3", 1234567: "1,234,567", -1234: "-1,234", 100: "100"} {
		if got := figure(v); got != want {
			t.Errorf("%v: %s, not %s", v, got, want)
		}
	}
}
