package bench

import (
	"fmt"
	"testing"

	"gridstream/bench/load"
)

// Exchange is what each connection has done before it is idle.
type Exchange struct {
	name   string
	size   int // of the packet that was echoed
	record int // most of it in one TLS record; 0: as much as TLS allows
}

var (
	// SmallPacket was echoed.
	SmallPacket = Exchange{"packet", packetSize, 0}
	largePacket = Exchange{"16KiB", 16<<10 - 2, 0}
	// A frame of 16 KiB. The driver's own clients put it into records of 3,000 bytes; others, into one.
	inSmallRecords = Exchange{"16KiB-in-3000B-records", 16<<10 - 2, 3000}
	inOneRecord    = Exchange{"16KiB-in-one-record", 16<<10 - 2, 0}
)

// IdleMemory is what an idle connection costs after it had a packet echoed, from few connections to many.
func IdleMemory(b *testing.B, impls []Impl) {
	for _, conns := range []int{1000, 5000, 10_000, 18_000} {
		idleMemory(b, impls, conns, false, SmallPacket)
	}
	idleMemory(b, impls, 5000, false, largePacket)
}

// IdleMemoryTLS is IdleMemory over TLS 1.3.
func IdleMemoryTLS(b *testing.B, impls []Impl) {
	for _, conns := range []int{1000, 2000, 5000} {
		idleMemory(b, impls, conns, true, SmallPacket)
	}
	idleMemory(b, impls, 1000, true, inSmallRecords)
	idleMemory(b, impls, 1000, true, inOneRecord)
}

func idleMemory(b *testing.B, impls []Impl, conns int, secure bool, after Exchange) {
	n := Scaled(conns)
	name := fmt.Sprintf("conns=%d/tls=%s/after=%s/", n, onOff(secure), after.name)
	forEach(b, impls, name, Options{Identity: identityFor(secure)}, func(b *testing.B, s *Server) {
		var cost Cost
		for first := true; b.Loop(); first = false {
			if first { // more would tell no more
				cost = idleCost(b, s, secure, n, after)
			}
		}
		b.ReportMetric(0, "ns/op")
		cost.report(b)
	})
}

func (c Cost) report(b *testing.B) {
	b.ReportMetric(c.HeapAndStack, "B/conn")
	b.ReportMetric(c.Resident, "RSS-B/conn")
	b.ReportMetric(c.Kernel, "kernel-B/conn")
	b.ReportMetric(c.Goroutines, "goroutines/conn")
}

// idleCost is what one of n idle connections to s costs after the exchange.
func idleCost(tb testing.TB, s *Server, secure bool, n int, after Exchange) Cost {
	tb.Helper()
	f := clients(tb, s, load.Role{Kind: load.Echo, TLS: secure, Conns: n, Size: after.size, Record: after.record})
	before := inUse()
	must(tb, f.Connect())
	waitFor(tb, func() bool { return s.Connections() == n }, "%d connections are established", n)
	return inUse().since(before, n)
}

// IdleCost starts impl and tells what one of n idle connections to it costs.
func IdleCost(tb testing.TB, impl Impl, secure bool, n int, after Exchange) Cost {
	tb.Helper()
	return idleCost(tb, start(tb, impl, Options{Identity: identityFor(secure)}), secure, n, after)
}
