package bench

import (
	"fmt"
	"testing"
	"time"

	"gridstream/bench/load"
)

// Echo is packets sent back as fast as they come, with depth of them under way on each connection. Where packets come together, a server
// is beside the others that writes each answer as it comes.
func Echo(b *testing.B, impls []Impl) {
	unbatched := []Impl{inlineEach()}
	for _, conns := range []int{100, 1000, 10_000, 18_000} {
		for _, depth := range []int{1, 16} {
			echo(b, impls, conns, depth, false)
			if depth > 1 && conns <= 1000 { // more would only take longer
				echo(b, unbatched, conns, depth, false)
			}
		}
	}
}

// EchoTLS is Echo over TLS 1.3.
func EchoTLS(b *testing.B, impls []Impl) {
	for _, p := range []struct{ conns, depth int }{{100, 1}, {100, 16}, {1000, 1}, {1000, 16}, {5000, 1}} {
		echo(b, impls, p.conns, p.depth, true)
		if p.depth > 1 {
			echo(b, []Impl{inlineEach()}, p.conns, p.depth, true)
		}
	}
}

func echo(b *testing.B, impls []Impl, conns, depth int, secure bool) {
	n := Scaled(conns)
	name := fmt.Sprintf("conns=%d/depth=%d/size=%d/tls=%s/", n, depth, packetSize, onOff(secure))
	forEach(b, impls, name, Options{Identity: identityFor(secure)}, func(b *testing.B, s *Server) {
		f := connected(b, s, load.Role{Kind: load.Echo, TLS: secure, Conns: n, Depth: depth})
		r, used := run(b, f)
		report(b, r, used, "msgs")
	})
}

// MostlyIdle is Echo on a few connections among very many that are idle.
func MostlyIdle(b *testing.B, impls []Impl) {
	idle, active := Scaled(18_000), Scaled(200)
	forEach(b, impls, fmt.Sprintf("idle=%d/active=%d/", idle, active), Options{}, func(b *testing.B, s *Server) {
		f := connected(b, s, load.Role{Kind: load.Echo, Conns: idle + active, Active: active, Depth: 1})
		r, used := run(b, f)
		report(b, r, used, "msgs")
	})
}

// Paced is packets at the pace of players, not as fast as they can: one a second from each of very many.
func Paced(b *testing.B, impls []Impl) {
	const pace = time.Second
	n := Scaled(10_000)
	forEach(b, impls, fmt.Sprintf("conns=%d/pace=%v/", n, pace), Options{}, func(b *testing.B, s *Server) {
		f := connected(b, s, load.Role{Kind: load.Echo, Conns: n, Pace: pace})
		r, used := run(b, f)
		report(b, r, used, "msgs")
	})
}

// Polled is Echo where one goroutine of the game asks for packets and answers them.
func Polled(b *testing.B, impls []Impl) {
	n := Scaled(10_000)
	forEach(b, impls, fmt.Sprintf("conns=%d/", n), Options{Polled: true}, func(b *testing.B, s *Server) {
		f := connected(b, s, load.Role{Kind: load.Echo, Conns: n, Depth: 1})
		r, used := run(b, f)
		report(b, r, used, "msgs")
	})
}
