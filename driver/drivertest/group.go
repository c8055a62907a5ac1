package drivertest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func groupProperties() []property {
	return []property{
		{"BroadcastToAll", broadcastToAll},
		{"BroadcastFiltered", broadcastFiltered},
		{"BroadcastSkipsTheFull", broadcastSkipsFull},
		{"BroadcastKeepsOrder", broadcastKeepsOrder},
		{"BroadcastToMany", broadcastToMany},
		{"Members", groupMembers},
		{"MembersLeaveByThemselves", groupLeave},
		{"MembersLeaveAlsoAfterRacingAddAndRemove", groupRacingLeave},
		{"TwoGroups", twoGroups},
		{"SeveralDrivers", groupOfSeveralDrivers},
		{"BroadcastWhileMembersComeAndGo", groupChurn},
	}
}

// audience is a server and its clients; conns are the server's.
type audience struct {
	server  *node
	clients []*node
	conns   []driver.Conn
}

func (s *suite) audience(size int, cfg driver.Config) *audience {
	s.Helper()
	a := &audience{server: s.server(cfg)}
	for range size {
		c := s.client(driver.Config{EventLoops: 1})
		_, sc := s.connect(c, a.server)
		a.clients, a.conns = append(a.clients, c), append(a.conns, sc)
	}
	return a
}

func broadcastToAll(s *suite) {
	a := s.audience(6, driver.Config{})
	require.Equal(s, 6, a.server.Broadcast([]byte("to all"), nil))
	for _, c := range a.clients {
		c.expect("to all")
	}
	a.conns[0].Close(nil)
	require.Equal(s, 5, a.server.Broadcast([]byte("to the rest"), nil))
	for _, c := range a.clients[1:] {
		c.expect("to the rest")
	}
}

func broadcastFiltered(s *suite) {
	a := s.audience(6, driver.Config{})
	for i, c := range a.conns {
		require.Nil(s, c.Value())
		c.SetValue(i)
	}
	asked := 0
	require.Equal(s, 3, a.server.Broadcast([]byte("even"), func(c driver.Conn) bool { asked++; return c.Value().(int)%2 == 0 }))
	require.Equal(s, 6, asked)
	require.Zero(s, a.server.Broadcast([]byte("nobody"), func(driver.Conn) bool { return false }))
	a.server.Broadcast([]byte("end"), nil)
	for i, c := range a.clients {
		if i%2 == 0 {
			c.expect("even")
		}
		c.expect("end")
	}
}

// broadcastSkipsFull: a member with a full outbound buffer gets nothing of it, and holds nobody up.
func broadcastSkipsFull(s *suite) {
	a := s.audience(3, driver.Config{OutboundBufferSize: 4096})
	slow, ok := a.clients[0].Conn(a.server.addr())
	require.True(s, ok)
	slow.PauseReading()
	sent := s.fill(a.conns[0], 0, 0, 1000)
	require.Equal(s, 2, a.server.Broadcast(make([]byte, 4000), nil))
	for i, c := range a.clients[1:] {
		c.expect(string(make([]byte, 4000)))
		s.await("that this side knows it", func() bool { return a.conns[1+i].Stats().OutboundBuffered == 0 })
	}
	g := driver.NewGroup()
	for _, c := range a.conns {
		g.Add(c)
	}
	require.Equal(s, 2, g.Broadcast(make([]byte, 4000)))
	for _, c := range a.clients[1:] {
		c.expect(string(make([]byte, 4000)))
	}
	slow.ResumeReading()
	k := newChecker(1)
	a.clients[0].pumping(k.take)
	k.complete(s, "the slow one", []int{sent})
}

// broadcastKeepsOrder: what is sent to a connection and what is broadcast keep their order.
func broadcastKeepsOrder(s *suite) {
	a := s.audience(3, driver.Config{OutboundBufferSize: 1 << 20})
	g := driver.NewGroup()
	for _, c := range a.conns {
		require.True(s, g.Add(c))
	}
	const packets = 3000
	for n := 0; n < packets; n += 3 {
		a.server.Broadcast(numbered(nil, 0, n, 20), nil)
		for _, c := range a.conns {
			require.NoError(s, c.Send(numbered(nil, 0, n+1, 20)))
		}
		g.Broadcast(numbered(nil, 0, n+2, 20))
	}
	for _, c := range a.clients {
		k := newChecker(1)
		c.pumping(k.take)
		k.complete(s, "broadcasts and sends", []int{packets})
	}
}

// broadcastToMany: from one event loop, where others on idle cores help it to write.
func broadcastToMany(s *suite) {
	const rounds = 100
	conns := s.amount(200)
	server := s.server(driver.Config{EventLoops: 1, OutboundBufferSize: 1 << 20})
	var checkers []*checker
	var readers sync.WaitGroup
	for range conns {
		nc, k := s.secured(s.dialRaw(server)), newChecker(1)
		checkers = append(checkers, k)
		readers.Go(func() {
			for range 2 * rounds {
				packet, err := readFrame(nc)
				if !assert.NoError(s, err) {
					return
				}
				k.take(packet)
			}
		})
	}
	s.await("everybody", func() bool { return server.NumberOfConnections() == conns })
	for n := range rounds {
		require.Equal(s, conns, server.Broadcast(numbered(nil, 0, 2*n, 20), nil))
		if n%10 == 0 {
			pace(3 * time.Millisecond) // the flusher has come to an end, and help
		}
		for c := range server.Conns() {
			require.NoError(s, c.Send(numbered(nil, 0, 2*n+1, 20)))
		}
	}
	s.must("that all arrives", readers.Wait)
	for _, k := range checkers {
		k.complete(s, "broadcasts and sends", []int{2 * rounds})
	}
}

func groupMembers(s *suite) {
	a := s.audience(3, driver.Config{})
	var g driver.Group // the zero value will do
	require.Zero(s, g.Len())
	require.Zero(s, g.Broadcast([]byte("nobody")))
	require.True(s, g.Add(a.conns[0]))
	require.False(s, g.Add(a.conns[0]))
	require.True(s, g.Add(a.conns[1]))
	require.Equal(s, 2, g.Len())
	require.Equal(s, 2, g.Broadcast([]byte("members")))
	a.clients[0].expect("members")
	a.clients[1].expect("members")
	require.True(s, g.Remove(a.conns[0]))
	require.False(s, g.Remove(a.conns[0]))
	require.False(s, g.Remove(a.conns[2]))
	require.Equal(s, 1, g.Broadcast([]byte("member")))
	a.clients[1].expect("member")
	require.True(s, g.Add(a.conns[0]))
	require.Equal(s, 2, g.Len())
}

func groupLeave(s *suite) {
	a := s.audience(3, driver.Config{})
	g := driver.NewGroup()
	for _, c := range a.conns {
		require.True(s, g.Add(c))
	}
	require.NoError(s, a.clients[0].Close())
	a.server.awaitEnd(a.conns[0])
	s.await("the member to leave", func() bool { return g.Len() == 2 })
	nc := s.hijack(a.conns[1])
	defer nc.Close()
	a.server.awaitEnd(a.conns[1])
	s.await("the member to leave", func() bool { return g.Len() == 1 })
	s.await("no member that is closed", func() bool { return !g.Add(a.conns[0]) && g.Len() == 1 })
	require.False(s, g.Add(a.conns[1]))
	require.Equal(s, 1, g.Broadcast([]byte("to who is left")))
	a.clients[2].expect("to who is left")
	require.NoError(s, a.server.Close())
	require.Zero(s, g.Len())
}

// groupRacingLeave: whoever wins between Add and Remove, a member leaves by itself.
func groupRacingLeave(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	groups := make([]*driver.Group, s.amount(5000))
	for i := range groups {
		g := driver.NewGroup()
		groups[i] = g
		require.True(s, g.Add(l.sc))
		removed := make(chan struct{})
		go func() {
			defer close(removed)
			g.Remove(l.sc)
		}()
		for range 20 {
			g.Add(l.sc)
		}
		<-removed
	}
	l.cc.Close(nil)
	l.server.awaitEnd(l.sc)
	require.NoError(s, l.server.Close())
	for i, g := range groups {
		require.Zero(s, g.Len(), "a closed connection is still a member of group %d", i)
	}
}

func twoGroups(s *suite) {
	a := s.audience(3, driver.Config{})
	zone, guild := driver.NewGroup(), driver.NewGroup()
	require.True(s, zone.Add(a.conns[0]))
	require.True(s, zone.Add(a.conns[1]))
	require.True(s, guild.Add(a.conns[1]))
	require.True(s, guild.Add(a.conns[2]))
	require.Equal(s, 2, zone.Broadcast([]byte("zone")))
	require.Equal(s, 2, guild.Broadcast([]byte("guild")))
	a.clients[0].expect("zone")
	a.clients[1].expect("zone", "guild")
	a.clients[2].expect("guild")
	a.conns[1].Close(nil)
	a.server.awaitEnd(a.conns[1])
	s.await("it to leave both", func() bool { return zone.Len() == 1 && guild.Len() == 1 })
}

// groupOfSeveralDrivers: members may be of different drivers, with framings of their own.
func groupOfSeveralDrivers(s *suite) {
	one, other := s.audience(2, driver.Config{}), s.audience(2, driver.Config{})
	g := driver.NewGroup()
	for _, c := range append(append([]driver.Conn(nil), one.conns...), other.conns...) {
		require.True(s, g.Add(c))
	}
	require.Equal(s, 4, g.Broadcast([]byte("to both")))
	for _, c := range append(append([]*node(nil), one.clients...), other.clients...) {
		c.expect("to both")
	}
	rawServer := s.server(driver.Config{Framing: raw{}})
	client := s.client(driver.Config{})
	_, sc := s.connect(client, rawServer)
	require.True(s, g.Add(sc))
	require.Equal(s, 5, g.Broadcast(frame([]byte("framed by hand"))))
	client.expect("framed by hand")
	for _, c := range one.clients {
		c.expect(string(frame([]byte("framed by hand"))))
	}
}

// groupChurn: who is a member throughout gets everything, whoever comes and goes.
func groupChurn(s *suite) {
	a := s.audience(1, driver.Config{OutboundBufferSize: 1 << 20})
	g := driver.NewGroup()
	g.Add(a.conns[0])
	sub := a.server.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) { g.Add(ev.Conn) }})
	defer sub.Cancel()
	var stop atomic.Bool
	wait := s.background("Broadcast", func() {
		for n := 0; !stop.Load(); n++ {
			g.Broadcast([]byte("to whoever is there"))
			g.Len()
		}
	})
	k := newChecker(1)
	a.clients[0].pumping(func(p []byte) {
		if string(p) != "to whoever is there" {
			k.take(p)
		}
	})
	guest := s.client(driver.Config{})
	for range s.amount(100) {
		cc, sc := s.connect(guest, a.server)
		if sc.ID()%2 == 0 {
			g.Remove(sc)
		}
		cc.Close(nil)
		guest.awaitEnd(cc)
		a.server.awaitEnd(sc)
	}
	stop.Store(true)
	wait()
	s.await("the guests to have left", func() bool { return g.Len() == 1 })
	require.NoError(s, a.conns[0].SendContext(s.context(), numbered(nil, 0, 0, 5)))
	k.complete(s, "the member", []int{1})
}
