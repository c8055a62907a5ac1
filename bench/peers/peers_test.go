package peers_test

import (
	"os"
	"testing"

	"gridstream/bench"
	"gridstream/bench/load"
	"gridstream/bench/peers"
)

func init() { bench.Flags() }

// Not checked for goroutines that are left: the frameworks' own pools stay.
func TestMain(m *testing.M) {
	load.Main()
	os.Exit(m.Run())
}

func servers() []bench.Impl {
	return append(bench.Drivers(), peers.Gnet(), peers.Nbio(), peers.Netpoll())
}

func BenchmarkEcho(b *testing.B)            { bench.Echo(b, servers()) }
func BenchmarkMostlyIdle(b *testing.B)      { bench.MostlyIdle(b, servers()) }
func BenchmarkIdleMemory(b *testing.B)      { bench.IdleMemory(b, servers()) }
func BenchmarkBroadcast(b *testing.B)       { bench.Broadcast(b, servers()) }
func BenchmarkConnectStorm(b *testing.B)    { bench.ConnectStorm(b, servers()) }
func BenchmarkDisconnectStorm(b *testing.B) { bench.DisconnectStorm(b, servers()) }
func BenchmarkChurn(b *testing.B)           { bench.Churn(b, servers()) }
