package drivertest

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// How GridMate's own tests and its carrier use the driver: one goroutine, Update and Receive in lock step.

func gridMateProperties() []property {
	return []property{
		{"LockStep", lockStep},
		{"MoreClientsThanMaxConnections", moreClientsThanMax},
		{"BogusServer", bogusServer},
		{"Reconnecting", reconnecting},
		{"ServerRestarts", serverRestarts},
	}
}

// gameLoop is a driver in a game's loop, and what is to arrive there.
type gameLoop struct {
	*node
	expected map[netip.AddrPort][]string // by sender
}

// drain receives everything that is there.
func (g *gameLoop) drain(s *suite, buf []byte) (received int) {
	s.Helper()
	for {
		g.Update()
		n, from, err := g.Receive(buf)
		require.NoError(s, err)
		if n == 0 {
			return received
		}
		want := g.expected[from]
		require.NotEmpty(s, want, "a packet from %v that nobody sent", from)
		require.Equal(s, want[0], string(buf[:n]))
		g.expected[from] = want[1:]
		received++
	}
}

// lockStep: hundreds of rounds in which each side sends random packets and then receives.
func lockStep(s *suite) {
	cfg := driver.Config{Dispatch: driver.DispatchOnUpdate, OutboundBufferSize: 1 << 20, EventLoops: 1}
	server := &gameLoop{s.server(cfg), map[netip.AddrPort][]string{}}
	var clients []*gameLoop
	var at []netip.AddrPort
	for range 4 {
		c := &gameLoop{s.client(cfg), map[netip.AddrPort][]string{}}
		cc, _ := s.connect(c.node, server.node)
		clients, at = append(clients, c), append(at, cc.LocalAddr())
	}
	random := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, server.MaxSendSize())
	packet := func() []byte {
		p := make([]byte, 1+random.IntN(1500))
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		return p
	}
	for range s.amount(500) {
		due := 0
		for i, c := range clients {
			for range random.IntN(3) {
				p := packet()
				require.NoError(s, c.Send(server.addr(), p))
				server.expected[at[i]] = append(server.expected[at[i]], string(p))
				p = packet()
				require.NoError(s, server.Send(at[i], p))
				c.expected[server.addr()] = append(c.expected[server.addr()], string(p))
				due += 2
			}
		}
		s.await("a round's packets", func() bool {
			due -= server.drain(s, buf)
			for _, c := range clients {
				due -= c.drain(s, buf)
			}
			return due <= 0
		})
		require.Zero(s, due)
	}
	for _, c := range clients {
		require.NoError(s, c.DisconnectFrom(server.addr()))
	}
	s.await("everybody to leave", func() bool { server.Update(); _, down := server.events.counts(); return down == len(clients) })
}

// moreClientsThanMax: the rest wait in the backlog, and get in when somebody leaves.
func moreClientsThanMax(s *suite) {
	const most, more = 3, 5
	server := s.server(driver.Config{MaxConnections: most})
	require.Equal(s, most, server.MaxNumConnections())
	var clients []*node
	for range most + more {
		c := s.client(driver.Config{EventLoops: 1})
		require.NoError(s, c.ConnectTo(server.addr()))
		clients = append(clients, c)
	}
	for left := range most + more {
		want := min(most, most+more-left)
		s.await("the server to be full", func() bool { return server.NumberOfConnections() == want })
		require.LessOrEqual(s, server.Stats().Accepted, uint64(most+left), "more than MaxConnections")
		s.await("somebody whom the server has accepted to leave", func() bool {
			for i, client := range clients {
				own, ok := client.Conn(server.addr())
				if !ok || !server.IsConnectedTo(own.LocalAddr()) {
					continue
				}
				require.NoError(s, client.DisconnectFrom(server.addr()))
				clients = slices.Delete(clients, i, i+1)
				return true
			}
			return false
		})
	}
	s.await("everybody to have been there and left", func() bool {
		st := server.Stats()
		return st.Accepted == most+more && st.Disconnected == most+more
	})
}

// bogusServer: the single Disconnected, and the driver goes on.
func bogusServer(s *suite) {
	client := s.client(driver.Config{Dispatch: driver.DispatchOnUpdate})
	bogus := s.nobody()
	require.NoError(s, client.ConnectTo(bogus))
	client.awaitFailure(bogus)
	up, down := client.events.counts()
	require.Zero(s, up)
	require.Equal(s, 1, down)
	require.Equal(s, driver.ErrSendAddressNotBound, driver.CodeOf(client.Send(bogus, []byte("x"))))
	server := s.server(driver.Config{})
	cc, sc := s.connect(client, server)
	(&link{client, server, cc, sc}).talks("after a bogus server")
}

func reconnecting(s *suite) {
	server, client := s.server(driver.Config{MaxConnections: 1}), s.client(driver.Config{MaxConnections: 1})
	ids := make(map[uint64]bool)
	for i := range s.amount(100) {
		cc, sc := s.connect(client, server)
		require.False(s, ids[cc.ID()] || ids[sc.ID()], "an ID was used again")
		ids[cc.ID()], ids[sc.ID()] = true, true
		(&link{client, server, cc, sc}).talks("again")
		if i%2 == 0 {
			require.NoError(s, client.DisconnectFrom(server.addr()))
		} else {
			require.NoError(s, server.DisconnectFrom(sc.RemoteAddr()))
		}
		client.awaitEnd(cc)
		server.awaitEnd(sc)
	}
}

// serverRestarts: a client finds the new server at the old address.
func serverRestarts(s *suite) {
	client := s.client(driver.Config{})
	port := uint16(0)
	for range 3 {
		server := s.listening(driver.Config{}, driver.Bind{Address: host, Port: port})
		port = server.Port()
		cc, sc := s.connect(client, server)
		(&link{client, server, cc, sc}).talks("to this server")
		require.NoError(s, server.Close())
		client.awaitEnd(cc)
	}
}
