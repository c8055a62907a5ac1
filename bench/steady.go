package bench

import (
	"testing"
	"time"

	"gridstream/bench/load"
)

// SteadyLoad is a load in steps, for looking at what they leave behind.
type SteadyLoad struct {
	Name string
	// Allowed is how many allocations a packet may cost.
	Allowed float64
	// Start returns a function that lets some packets go and returns how many, when all of them have arrived. The step's own
	// allocations are a few, however many the packets.
	Start func(tb testing.TB, impl Impl) (step func() uint64)
}

const (
	steadyConns = 1000
	steadyBurst = 20
	steadyDepth = 16
)

// SteadyLoads are packets that are echoed, on the event loops and by a goroutine that polls, broadcast, sent to a group, and sent from a
// goroutine; over TLS echoed and broadcast. There crypto/tls allocates an atLeastReader, of 32 bytes, for each record that it reads.
func SteadyLoads() []SteadyLoad {
	const none, tlsRead = 0.01, 1.1
	return []SteadyLoad{
		{"echo", none, steadyEcho(Options{}, steadyDepth)},
		{"polled", none, steadyEcho(Options{Polled: true}, steadyDepth)},
		{"broadcast", none, steadyStart(Options{}, broadcasting)},
		{"group", none, steadyStart(Options{}, func(s *Server) func([]byte) { return func(p []byte) { s.Group(p) } })},
		{"send", none, steadyStart(Options{}, func(s *Server) func([]byte) {
			senders := s.Senders()
			return func(p []byte) {
				for _, send := range senders {
					_ = send(p)
				}
			}
		})},
		{"tls/echo", tlsRead, steadyEcho(Options{Identity: ecdsaIdentity()}, 1)},
		{"tls/broadcast", none, steadyStart(Options{Identity: ecdsaIdentity()}, broadcasting)},
	}
}

func broadcasting(s *Server) func([]byte) { return func(p []byte) { s.Broadcast(p) } }

func steadyEcho(o Options, depth int) func(testing.TB, Impl) func() uint64 {
	return func(tb testing.TB, impl Impl) func() uint64 {
		f := connected(tb, start(tb, impl, o), load.Role{Kind: load.Echo, TLS: o.Identity != nil, Conns: 100, Depth: depth})
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

func steadyStart(o Options, sendTo func(*Server) func(packet []byte)) func(testing.TB, Impl) func() uint64 {
	return func(tb testing.TB, impl Impl) func() uint64 {
		o.Broadcasts, o.Group = true, true
		s := start(tb, impl, o)
		f := connected(tb, s, load.Role{Kind: load.Sink, TLS: o.Identity != nil, Conns: steadyConns})
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
