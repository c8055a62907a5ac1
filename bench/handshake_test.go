package bench

import (
	"testing"
	"time"
)

// handshakesAtOnce is how many handshakes are under way.
const handshakesAtOnce = 16

// BenchmarkHandshake is connections made, each with a TLS 1.3 handshake and a packet echoed, and closed, as fast as the clients
// can.
func BenchmarkHandshake(b *testing.B) {
	for _, p := range []struct {
		key     string
		id      func() *identity
		resumed bool
	}{
		{"ecdsa", ecdsaIdentity, false},
		{"rsa2048", rsaIdentity, false},
		{"resumed", ecdsaIdentity, true},
	} {
		forEachImpl(b, "key="+p.key+"/", func(b *testing.B, impl string) {
			s := startServer(b, impl, serverOptions{id: p.id()})
			defer s.close()
			load := startClients(b, role{Kind: "handshakes", Addr: s.addr, TLS: true, Conns: handshakesAtOnce, Size: 64, Resumed: p.resumed})
			defer load.end()
			o, used := run(b, load, 100*time.Millisecond)
			report(b, o, used, "handshakes")
		})
	}
}

// BenchmarkLoginStorm is the round trip of 200 established connections, a packet each 50 ms, while others log in with full
// RSA-2048 handshakes as fast as they can.
func BenchmarkLoginStorm(b *testing.B) {
	forEachImpl(b, "", func(b *testing.B, impl string) {
		s := startServer(b, impl, serverOptions{id: rsaIdentity()})
		defer s.close()
		players := startClients(b, role{Kind: "echo", Addr: s.addr, TLS: true, Conns: scaled(200), Size: 64, PaceMS: 50})
		defer players.end()
		storm := startClients(b, role{Kind: "handshakes", Addr: s.addr, TLS: true, Conns: 64, Size: 64})
		defer storm.end()
		storm.do("start", 0)
		storm.do("mark", 0)
		o, _ := run(b, players, time.Second)
		logins := storm.do("stop", 0)
		if logins.Failed > 0 {
			b.Fatalf("%d logins failed: %s", logins.Failed, logins.Error)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(logins.rate(), "handshakes/s")
		reportLatency(b, o)
	})
}
