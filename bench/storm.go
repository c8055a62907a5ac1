package bench

import (
	"fmt"
	"testing"
	"time"

	"gridstream/bench/load"
)

// atOnce is how many connections are being made: fewer than the least common backlog.
const atOnce = 100

// storms lets connections come and go.
type storms struct {
	b          *testing.B
	s          *Server
	f          *load.Fleet
	n          uint64
	come, went uint64 // so far
}

func newStorms(b *testing.B, s *Server, n int) *storms {
	f := clients(b, s, load.Role{Kind: load.Sink, Conns: n, Welcomed: true, AtOnce: atOnce})
	return &storms{b: b, s: s, f: f, n: uint64(n)}
}

// connect returns when everybody is connected and welcomed, and its event told.
func (m *storms) connect() {
	m.come += m.n
	must(m.b, m.f.Connect())
	waitFor(m.b, func() bool { return m.s.Events().Established >= m.come }, "%d are established", m.come)
}

// disconnect returns when everybody's end is told.
func (m *storms) disconnect() {
	m.went += m.n
	must(m.b, m.f.Disconnect())
	waitFor(m.b, func() bool { return m.s.Events().Disconnected >= m.went }, "%d are disconnected", m.went)
	if got := m.s.Events(); got != (Events{m.come, m.went}) {
		m.b.Fatalf("%+v; %d came, %d went", got, m.come, m.went)
	}
}

// measure runs timed for as long as the benchmark wants, with untimed behind each.
func (m *storms) measure(timed, untimed func()) {
	var took, used time.Duration
	for m.b.Loop() {
		before, began := processorTime(), time.Now()
		timed()
		took += time.Since(began)
		used += processorTime() - before
		m.b.StopTimer()
		untimed()
		m.b.StartTimer()
	}
	conns := uint64(m.b.N) * m.n
	m.b.ReportMetric(0, "ns/op")
	m.b.ReportMetric(float64(conns)/took.Seconds(), "conns/s")
	reportCost(m.b, used, conns)
}

// ConnectStorm is very many connections that come at the same time. Each is welcomed with a packet in its event.
func ConnectStorm(b *testing.B, impls []Impl) {
	forEachStorm(b, impls, func(m *storms) { m.measure(m.connect, m.disconnect) })
}

// DisconnectStorm is very many connections that go at the same time, events included.
func DisconnectStorm(b *testing.B, impls []Impl) {
	forEachStorm(b, impls, func(m *storms) {
		m.connect()
		m.measure(m.disconnect, m.connect)
	})
}

func forEachStorm(b *testing.B, impls []Impl, run func(*storms)) {
	n := Scaled(10_000)
	forEach(b, impls, fmt.Sprintf("conns=%d/", n), Options{Welcome: Welcome()}, func(b *testing.B, s *Server) {
		run(newStorms(b, s, n))
	})
}

// Churn is connections that are made, have a packet echoed, and are closed, some at a time.
func Churn(b *testing.B, impls []Impl) {
	forEach(b, impls, fmt.Sprintf("at-once=%d/", atOnce), Options{}, func(b *testing.B, s *Server) {
		f := connected(b, s, load.Role{Kind: load.Churn, Conns: atOnce})
		r, used := run(b, f)
		report(b, r, used, "conns")
		waitFor(b, func() bool { e := s.Events(); return e.Established == e.Disconnected }, "everybody's end is told")
		if e := s.Events(); e.Established < r.Count {
			b.Fatalf("%d events for %d connections", e.Established, r.Count)
		}
	})
}
