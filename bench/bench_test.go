package bench_test

import (
	"flag"
	"testing"

	"gridstream/bench"
)

func BenchmarkEcho(b *testing.B) {
	bench.Echo(b, servers())
	bench.EchoTLS(b, servers())
}

func BenchmarkMostlyIdle(b *testing.B) { bench.MostlyIdle(b, servers()) }
func BenchmarkPaced(b *testing.B)      { bench.Paced(b, servers()) }

func BenchmarkIdleMemory(b *testing.B) {
	impls := append(servers(), bench.TwoGoroutines())
	bench.IdleMemory(b, impls)
	bench.IdleMemoryTLS(b, impls)
}

func BenchmarkBroadcast(b *testing.B) { bench.Broadcast(b, servers()) }
func BenchmarkGroup(b *testing.B)     { bench.Group(b, servers()) }

func BenchmarkSendFromGoroutines(b *testing.B) { bench.SendFromGoroutines(b, servers()) }

func BenchmarkConnectStorm(b *testing.B)    { bench.ConnectStorm(b, servers()) }
func BenchmarkDisconnectStorm(b *testing.B) { bench.DisconnectStorm(b, servers()) }
func BenchmarkChurn(b *testing.B)           { bench.Churn(b, servers()) }

func BenchmarkHandshake(b *testing.B)  { bench.Handshake(b, servers()) }
func BenchmarkLoginStorm(b *testing.B) { bench.LoginStorm(b, servers()) }

func BenchmarkPolled(b *testing.B) { bench.Polled(b, bench.Drivers()) }

func BenchmarkEventDispatch(b *testing.B) { bench.EventDispatch(b) }

var conns = flag.Int("conns", 0, "BenchmarkConnections: how many; 0: skip it")

func init() { bench.Flags() }

// BenchmarkConnections is make bench CONNS=….
func BenchmarkConnections(b *testing.B) {
	if *conns <= 0 {
		b.Skip("no -conns")
	}
	bench.Connections(b, bench.Drivers(), *conns)
}
