package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

//go:embed benchmarks.md.tmpl
var documentText string

//go:embed notes.md
var notes string

// writeDocument writes doc, and its plots into a folder of its name beside it.
func writeDocument(set *resultSet, doc string) error {
	plots := strings.TrimSuffix(doc, ".md")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(plots, "*.svg"))
	for _, name := range old {
		if removeErr := os.Remove(name); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	if err != nil {
		return err
	}
	drawn, err := set.drawCharts(plots)
	if err != nil {
		return err
	}
	t, err := template.New("benchmarks.md").Parse(documentText)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, document{Set: set, Drawn: drawn, Folder: filepath.Base(plots)}); err != nil {
		return err
	}
	return os.WriteFile(doc, out.Bytes(), 0o644)
}

// document is what the template sees.
type document struct {
	Set    *resultSet
	Drawn  []chart
	Folder string
}

func (d document) Machine(name string) string { return d.Set.machine[name] }

// Notes are written by hand: why the figures are what they are.
func (d document) Notes() string { return strings.TrimSpace(notes) }

func (d document) Plots() string {
	var b strings.Builder
	for _, c := range d.Drawn {
		fmt.Fprintf(&b, "![%s](%s/%s)\n\n", c.title, d.Folder, c.file)
	}
	return strings.TrimSpace(b.String())
}

func (d document) Goals() string {
	t := table{head: []string{"", "goal", "measured", ""}}
	for _, g := range goals {
		s := d.Set.measured(g)
		verdict := "met"
		switch {
		case s.n == 0:
			continue
		case !g.met(s):
			verdict = "**missed**"
		}
		t.add(g.what, g.bound(), withRange(s), verdict)
	}
	return t.String()
}

// Memory is a table of absolute figures.
func (d document) Memory() string {
	bases := d.Set.bases("IdleMemory/")
	impls := d.implsOf(bases)
	t := table{head: append(append([]string{"heap + stack, B a connection"}, impls...), "loop's RSS", "kernel, loop")}
	for _, base := range bases {
		row := []string{"`" + strings.TrimPrefix(base, "IdleMemory/") + "`"}
		for _, impl := range impls {
			row = append(row, bytesFigure(d.Set.value(base, impl, "B/conn")))
		}
		row = append(row, bytesFigure(d.Set.value(base, "loop", "RSS-B/conn")), bytesFigure(d.Set.value(base, "loop", "kernel-B/conn")))
		t.add(row...)
	}
	return t.String()
}

// Million is the table of what the fitted lines say of 1,000,000 connections.
func (d document) Million() string {
	const n = 1e6
	t := table{head: []string{"1,000,000 idle connections, extrapolated", "a connection", "heap + stack", "RSS"}}
	for _, secure := range []string{"off", "on"} {
		for _, impl := range d.implsOf(d.Set.bases("IdleMemory/")) {
			suffix := "/tls=" + secure + "/after=packet"
			user, ok := fit(d.Set.totals("IdleMemory/", suffix, impl, "B/conn"))
			if !ok {
				continue
			}
			row := []string{impl, figure(math.Round(user.slope)) + " B", gigabytes(user.at(n))}
			if secure == "on" {
				row[0] += ", TLS"
			}
			cell := "–"
			if l, ok := fit(d.Set.totals("IdleMemory/", suffix, impl, "RSS-B/conn")); ok && l.slope > 0 {
				cell = gigabytes(l.at(n))
			}
			t.add(append(row, cell)...)
		}
	}
	return t.String()
}

// Kernel is what the fitted line says of the kernel's part, whichever the server.
func (d document) Kernel() string {
	var points []point
	for _, impl := range implOrder {
		points = append(points, d.Set.totals("IdleMemory/", "/tls=off/after=packet", impl, "kernel-B/conn")...)
	}
	l, ok := fit(points)
	if !ok || l.slope <= 0 {
		return "not told by this system"
	}
	return fmt.Sprintf("%s B a connection, %s for a million", figure(math.Round(l.slope)), gigabytes(l.at(1e6)))
}

// Versus is the table of the driver's figures divided by another server's.
func (d document) Versus(other string) string {
	t := table{head: []string{"loop ÷ " + other, "rate", "server's CPU", "p50", "p99"}}
	for _, base := range d.Set.bases("") {
		rate := d.rateUnit(base)
		if strings.HasPrefix(base, "IdleMemory/") || strings.HasPrefix(base, "EventDispatch/") {
			continue
		}
		r := d.Set.ratio(base, "loop", other, rate)
		if r.n == 0 {
			continue
		}
		row := []string{"`" + base + "`", withRange(r)}
		for _, unit := range []string{"cpu-µs/op", "p50-ns", "p99-ns"} {
			row = append(row, withRange(d.Set.ratio(base, "loop", other, unit)))
		}
		t.add(row...)
	}
	return t.String()
}

// Events is the table of EventDispatch.
func (d document) Events() string {
	bases := d.Set.bases("EventDispatch/")
	impls := d.implsOf(bases)
	t := table{head: append([]string{"an event told to all, ns"}, impls...)}
	for _, base := range bases {
		row := []string{"`" + strings.TrimPrefix(base, "EventDispatch/") + "`"}
		for _, impl := range impls {
			row = append(row, figure(d.Set.value(base, impl, "ns/op").median))
		}
		t.add(row...)
	}
	return t.String()
}

// Behind are the figures in which another server is ahead by more than 5 % whenever both ran, and that was more than once.
func (d document) Behind() string {
	var b strings.Builder
	for _, other := range implOrder[1:] {
		t := table{head: []string{"loop ÷ " + other, "where " + other + " is ahead"}}
		for _, base := range d.Set.bases("") {
			var parts []string
			for _, f := range []struct {
				unit string
				more bool // is better
			}{{d.rateUnit(base), true}, {"cpu-µs/op", false}, {"p99-ns", false}, {"B/conn", false}} {
				s := d.Set.ratio(base, "loop", other, f.unit)
				if s.n < 2 && f.unit != "B/conn" || s.n == 0 { // memory depends on no load
					continue
				}
				if f.more && s.max < 0.95 || !f.more && s.min > 1.05 {
					parts = append(parts, unitName(f.unit)+" "+withRange(s))
				}
			}
			if len(parts) > 0 {
				t.add("`"+base+"`", strings.Join(parts, ", "))
			}
		}
		if len(t.rows) > 0 {
			fmt.Fprintf(&b, "%s\n\n", t.String())
		}
	}
	if b.Len() == 0 {
		return "Nowhere, in these runs."
	}
	return strings.TrimSpace(b.String())
}

func unitName(unit string) string {
	switch unit {
	case "cpu-µs/op":
		return "CPU"
	case "p99-ns":
		return "p99"
	case "B/conn":
		return "memory"
	}
	return "rate"
}

var rateUnits = []string{"msgs/s", "deliveries/s", "conns/s", "handshakes/s"}

func (d document) rateUnit(base string) string {
	for _, s := range d.Set.samples {
		if s.base == base {
			for _, unit := range rateUnits {
				if _, ok := s.values[unit]; ok {
					return unit
				}
			}
		}
	}
	return ""
}

func (d document) implsOf(bases []string) []string {
	var impls []string
	for _, base := range bases {
		for _, impl := range d.Set.impls(base) {
			if !slices.Contains(impls, impl) {
				impls = append(impls, impl)
			}
		}
	}
	slices.SortStableFunc(impls, func(a, b string) int { return rank(a) - rank(b) })
	return impls
}

// table is one in Markdown.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	if len(t.rows) == 0 {
		return "No results."
	}
	var b strings.Builder
	write := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	write(t.head)
	write(slices.Repeat([]string{"---"}, len(t.head)))
	for _, row := range t.rows {
		write(row)
	}
	return strings.TrimSpace(b.String())
}

// withRange is a median, and the range of several rounds.
func withRange(s spread) string {
	switch s.n {
	case 0:
		return "–"
	case 1:
		return figure(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", figure(s.median), figure(s.min), figure(s.max))
}

func bytesFigure(s spread) string {
	if s.n == 0 {
		return "–"
	}
	return figure(math.Round(s.median))
}

func gigabytes(bytes float64) string { return figure(bytes/1e9) + " GB" }

// figure is v with three digits that count.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return thousands(int(math.Round(v)))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
