package bench

import (
	"fmt"
	"testing"
	"time"

	"gridstream/bench/load"
)

// handshakesAtOnce is how many handshakes are under way.
const handshakesAtOnce = 16

// Handshake is connections made, each with a TLS 1.3 handshake and a packet echoed, and closed, as fast as the clients can.
func Handshake(b *testing.B, impls []Impl) {
	for _, p := range []struct {
		key     string
		id      func() *Identity
		resumed bool
	}{
		{"ecdsa", ecdsaIdentity, false},
		{"rsa2048", rsaIdentity, false},
		{"resumed", ecdsaIdentity, true},
	} {
		forEach(b, impls, "key="+p.key+"/", Options{Identity: p.id()}, func(b *testing.B, s *Server) {
			f := connected(b, s, load.Role{Kind: load.Handshakes, TLS: true, Conns: handshakesAtOnce, Resumed: p.resumed})
			r, used := run(b, f)
			report(b, r, used, "handshakes")
		})
	}
}

// LoginStorm is the round trip of 200 established connections, a packet each 50 ms, while others log in with full RSA-2048 handshakes as
// fast as they can. The server's processor time is for one of the logins, with all that the established ones do.
func LoginStorm(b *testing.B, impls []Impl) {
	const pace, logins = 50 * time.Millisecond, 64
	established := Scaled(200)
	name := fmt.Sprintf("established=%d/logins=%d/", established, logins)
	forEach(b, impls, name, Options{Identity: rsaIdentity()}, func(b *testing.B, s *Server) {
		players := connected(b, s, load.Role{Kind: load.Echo, TLS: true, Conns: established, Pace: pace})
		storm := clients(b, s, load.Role{Kind: load.Handshakes, TLS: true, Conns: logins})
		must(b, storm.Connect())
		must(b, storm.Start())
		must(b, storm.Mark())
		before := processorTime()
		r, _ := run(b, players)
		used := processorTime() - before
		others, err := storm.Stop()
		must(b, err)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(others.Rate(), "handshakes/s")
		reportCost(b, used, others.Count)
		reportLatency(b, r)
	})
}
