package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var colors = map[string]color.Color{
	"loop":                  color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 0xff},
	"stdnet":                color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff},
	"gnet":                  color.RGBA{R: 0x2c, G: 0xa0, B: 0x2c, A: 0xff},
	"nbio":                  color.RGBA{R: 0x94, G: 0x67, B: 0xbd, A: 0xff},
	"netpoll":               color.RGBA{R: 0xff, G: 0x7f, B: 0x0e, A: 0xff},
	"stdlib-inline":         color.RGBA{R: 0x7f, G: 0x7f, B: 0x7f, A: 0xff},
	"stdlib-two-goroutines": color.RGBA{R: 0x17, G: 0xbe, B: 0xcf, A: 0xff},
}

// chart is a figure against the number of connections, a line for each server.
type chart struct {
	file, title, y string
	prefix, suffix string // of the benchmarks' names
	unit           string
	scale          float64
	perConn        bool // multiply by the connections
	logX, logY     bool
}

var charts = []chart{
	{file: "memory.svg", title: "Idle connections, plain: heap and stacks", y: "MB", prefix: "IdleMemory/", suffix: "/tls=off/after=packet",
		unit: "B/conn", scale: 1e-6, perConn: true},
	{file: "memory-tls.svg", title: "Idle connections, TLS 1.3: heap and stacks", y: "MB", prefix: "IdleMemory/", suffix: "/tls=on/after=packet",
		unit: "B/conn", scale: 1e-6, perConn: true},
	{file: "p99.svg", title: "Echo, a packet under way on each connection: p99", y: "ms", prefix: "Echo/", suffix: "/depth=1/size=64/tls=off",
		unit: "p99-ns", scale: 1e-6, logX: true, logY: true},
	{file: "rate.svg", title: "Echo, a packet under way on each connection: rate", y: "thousand answers a second", prefix: "Echo/",
		suffix: "/depth=1/size=64/tls=off", unit: "msgs/s", scale: 1e-3, logX: true},
	{file: "cpu.svg", title: "Echo, a packet under way on each connection: the server's processor time", y: "µs an answer", prefix: "Echo/",
		suffix: "/depth=1/size=64/tls=off", unit: "cpu-µs/op", scale: 1, logX: true},
}

// drawCharts draws those for which there are results, and returns them.
func (r *resultSet) drawCharts(dir string) ([]chart, error) {
	var drawn []chart
	for _, c := range charts {
		p, err := r.plot(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.file, err)
		}
		if p == nil {
			continue
		}
		if err := p.Save(16*vg.Centimeter, 10*vg.Centimeter, filepath.Join(dir, c.file)); err != nil {
			return nil, err
		}
		drawn = append(drawn, c)
	}
	return drawn, nil
}

// plot is nil where there are too few results.
func (r *resultSet) plot(c chart) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, "connections", c.y
	p.X.Tick.Marker = connectionTicks{}
	if c.logX {
		p.X.Scale = plot.LogScale{}
	}
	if c.logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	lines := 0
	for _, impl := range implOrder {
		var points plotter.XYs
		for _, base := range r.bases(c.prefix) {
			n, ok := parameter(base, "conns")
			v := r.value(base, impl, c.unit)
			if !ok || v.n == 0 || v.median <= 0 || !strings.HasSuffix(base, c.suffix) {
				continue
			}
			y := v.median * c.scale
			if c.perConn {
				y *= float64(n)
			}
			points = append(points, plotter.XY{X: float64(n), Y: y})
		}
		if len(points) < 2 || colors[impl] == nil {
			continue
		}
		l, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		l.Color, dots.Color = colors[impl], colors[impl]
		l.Width = vg.Points(1.5)
		dots.Shape = draw.CircleGlyph{}
		p.Add(l, dots)
		p.Legend.Add(impl, l, dots)
		lines++
	}
	if lines == 0 {
		return nil, nil
	}
	if !c.logY {
		p.Y.Max *= 1.35 // room for the legend
		p.Y.Min = 0
	}
	p.X.Max *= 1.05 // and for the last label
	return p, nil
}

// connectionTicks are at the numbers of connections that benchmarks have.
type connectionTicks struct{}

func (connectionTicks) Ticks(min, max float64) (ticks []plot.Tick) {
	for _, n := range []int{100, 1000, 5000, 10_000, 18_000, 50_000, 100_000, 1_000_000} {
		if v := float64(n); v >= min && v <= max {
			ticks = append(ticks, plot.Tick{Value: v, Label: thousands(n)})
		}
	}
	return ticks
}
