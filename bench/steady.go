package bench

import (
	"testing"
	"time"

	"gridstream/bench/load"
)

// SteadyLoad is a load in steps, for looking at what they leave behind.
type SteadyLoad struct {
	Name string
	// Start returns a function that lets some packets go and returns how many, when all of them have arrived. The step's own
	// allocations are a few, however many the packets.
	Start func(tb testing.TB, impl Impl) (step func() uint64)
}

const (
	steadyConns = 1000
	steadyBurst = 20
)

// SteadyLoads are packets that are echoed, on the event loops and by a goroutine that polls, broadcast, sent to a group, and sent from a
// goroutine. Not over TLS: crypto/tls allocates 32 bytes for each read (atLeastReader).
func SteadyLoads() []SteadyLoad {
	return []SteadyLoad{
		{"echo", steadyEcho(Options{})},
		{"polled", steadyEcho(Options{Polled: true})},
		{"broadcast", steadyStart(func(s *Server) func([]byte) { return func(p []byte) { s.Broadcast(p) } })},
		{"group", steadyStart(func(s *Server) func([]byte) { return func(p []byte) { s.Group(p) } })},
		{"send", steadyStart(func(s *Server) func([]byte) {
			senders := s.Senders()
			return func(p []byte) {
				for _, send := range senders {
					_ = send(p)
				}
			}
		})},
	}
}

func steadyEcho(o Options) func(testing.TB, Impl) func() uint64 {
	return func(tb testing.TB, impl Impl) func() uint64 {
		f := connected(tb, start(tb, impl, o), load.Role{Kind: load.Echo, Conns: 100, Depth: 16})
		must(tb, f.Start())
		tb.Cleanup(func() {
			_, err := f.Stop()
			must(tb, err)
		})
		return func() uint64 {
			must(tb, f.Mark())
			time.Sleep(window(f.Conns()))
			n, err := f.Count()
			must(tb, err)
			return n
		}
	}
}

func steadyStart(sendTo func(*Server) func(packet []byte)) func(testing.TB, Impl) func() uint64 {
	return func(tb testing.TB, impl Impl) func() uint64 {
		s := start(tb, impl, Options{Broadcasts: true, Group: true})
		f := connected(tb, s, load.Role{Kind: load.Sink, Conns: steadyConns})
		send := sendTo(s)
		packet := make([]byte, packetSize)
		seq := 0
		return func() uint64 {
			must(tb, f.Expect(steadyBurst))
			for range steadyBurst {
				load.Fill(packet, 0, seq)
				seq++
				send(packet)
			}
			must(tb, f.Await())
			return steadyConns * steadyBurst
		}
	}
}
