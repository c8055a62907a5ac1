package drivertest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// settledSoon is a moment in which something wrong would probably happen.
const settledSoon = 2 * time.Millisecond

// closeInEstablished: a subscriber may turn a connection away.
func closeInEstablished(s *suite) {
	server := s.bare(driver.Config{})
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
		assert.NoError(s, ev.Conn.Send([]byte("go away")))
		ev.Conn.Close(errKicked)
	}})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	client := s.client(driver.Config{})
	for i := range 20 {
		require.NoError(s, client.ConnectTo(server.addr()))
		client.expect("go away")
		s.await("both ends", func() bool {
			return server.Stats().Disconnected == uint64(i+1) && client.Stats().Disconnected == uint64(i+1)
		})
		require.Zero(s, server.NumberOfConnections())
	}
	for _, ev := range server.events.all() {
		if !ev.up {
			require.ErrorIs(s, ev.Reason, errKicked)
		}
	}
}

// callsInCallbacks: what does not block may be called from a callback.
func callsInCallbacks(s *suite) {
	server := s.bare(driver.Config{})
	group := driver.NewGroup()
	all := func(ev driver.Event) {
		server.Update()
		server.IsListening()
		server.Port()
		server.Stats()
		server.NumberOfConnections()
		server.Broadcast([]byte("b"), func(driver.Conn) bool { return true })
		group.Broadcast([]byte("g"))
		for c := range server.Conns() {
			c.Stats()
			c.PauseReading()
			c.ResumeReading()
		}
		group.Add(ev.Conn)
		ev.Conn.Authenticated()
		ev.Conn.SetValue(1)
		_ = server.Send(ev.Address, []byte("s"))
		_, _, _ = server.Receive(make([]byte, 100))
		_ = server.DisconnectFrom(netip.MustParseAddrPort("127.0.0.1:9"))
	}
	server.Events().Subscribe(driver.SubscriberFuncs{Established: all, Disconnected: all})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	for range 5 {
		client := s.client(driver.Config{EventLoops: 1})
		cc, sc := s.connect(client, server)
		require.NoError(s, cc.Send([]byte("hello")))
		require.NoError(s, client.Close())
		server.awaitEnd(sc)
	}
	s.await("the group to be empty", func() bool { return group.Len() == 0 })
}

// blockingCalls: what would have to wait for the callback that it is called in says so, and nothing hangs.
func blockingCalls(s *suite) {
	ln := s.listener()
	type callback struct{ driver, name string }
	called := make(chan callback, 6)
	refuses := func(n *node, c driver.Conn, at callback) {
		nc, err := c.Hijack()
		assert.Nil(s, nc, at)
		assert.ErrorIs(s, err, driver.ErrInCallback, at)
		assert.Equal(s, driver.ErrSocketClose, driver.CodeOf(err), at)

		nc, err = net.Dial("tcp4", ln.Addr().String())
		assert.NoError(s, err)
		adopted, err := n.Adopt(nc)
		assert.Nil(s, adopted, at)
		assert.ErrorIs(s, err, driver.ErrInCallback, at)
		assert.Equal(s, driver.ErrSocketAccept, driver.CodeOf(err), at)
		_, err = nc.Write([]byte("x"))
		assert.ErrorIs(s, err, net.ErrClosed, at)

		ctx, packet := s.context(), make([]byte, 1000)
		for err = nil; err == nil; {
			err = c.SendContext(ctx, packet)
		}
		cause := driver.ErrInCallback
		if at.name == "Disconnected" {
			cause = net.ErrClosed
		}
		assert.ErrorIs(s, err, cause, at)
		assert.Equal(s, driver.ErrSend, driver.CodeOf(err), at)
		called <- at
	}
	const answer = 10
	made := func(name string, make func(driver.Config) *node) (n *node) {
		n = make(driver.Config{EventLoops: 1, OutboundBufferSize: 4000, OnPacket: func(c driver.Conn, p []byte) {
			switch len(p) {
			case 1:
				refuses(n, c, callback{name, "OnPacket"})
			case answer:
				called <- callback{name, "the answer"}
			default:
				pace(200 * time.Microsecond) // slower than who sends in a callback
			}
		}})
		n.Events().Subscribe(driver.SubscriberFuncs{
			Established:  func(ev driver.Event) { refuses(n, ev.Conn, callback{name, "Established"}) },
			Disconnected: func(ev driver.Event) { refuses(n, ev.Conn, callback{name, "Disconnected"}) },
		})
		return n
	}
	await := func(name string) {
		s.Helper()
		want, got := map[callback]bool{{"server", name}: true, {"client", name}: true}, map[callback]bool{}
		for range 2 {
			select {
			case at := <-called:
				got[at] = true
			case <-s.context().Done():
				s.Fatalf("a callback hangs: %s, came %v\n%s", name, got, stacks())
			}
		}
		require.Equal(s, want, got)
	}
	server, client := made("server", s.bare), made("client", func(cfg driver.Config) *node { return s.node(s.newClient, cfg) })
	require.NoError(s, server.Initialize(narrow))
	require.NoError(s, client.Initialize(narrow))
	require.NoError(s, server.StartListen(0))
	cc, sc := s.connect(client, server)
	await("Established")
	for _, round := range []struct {
		size     int
		callback string
	}{{1, "OnPacket"}, {answer, "the answer"}} { // it goes on as if nothing had been
		for _, c := range []driver.Conn{cc, sc} {
			require.NoError(s, c.SendContext(s.context(), make([]byte, round.size)))
		}
		await(round.callback)
	}
	cc.Close(nil)
	await("Disconnected")
}

// hijackInUpdate: a subscriber that Update calls runs on the application's own goroutine, and may wait.
func hijackInUpdate(s *suite) {
	server := s.bare(driver.Config{Dispatch: driver.DispatchOnUpdate})
	var nc net.Conn
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
		var err error
		nc, err = ev.Conn.Hijack()
		assert.NoError(s, err)
	}})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	client := s.client(driver.Config{})
	require.NoError(s, client.ConnectTo(server.addr()))
	s.must("Update", func() {
		for nc == nil && !s.Failed() {
			server.Update()
		}
	})
	require.NotNil(s, nc)
	defer nc.Close()
	_, err := nc.Write(frame([]byte("from Update")))
	require.NoError(s, err)
	client.expect("from Update")
}

// nobody is an address of the loopback where nobody listens.
func (s *suite) nobody() netip.AddrPort {
	s.Helper()
	n := s.client(driver.Config{EventLoops: 1}) // keeps the port, and does not listen
	return n.addr()
}

// connectToFails: a single Disconnected.
func connectToFails(s *suite) {
	for _, dispatch := range []driver.Dispatch{driver.DispatchOnLoop, driver.DispatchOnUpdate} {
		client := s.client(driver.Config{Dispatch: dispatch, MaxConnections: 3})
		nobody := s.nobody()
		for i := range 10 { // and it holds no room for a connection afterwards
			require.NoError(s, client.ConnectTo(nobody))
			s.await("Disconnected", func() bool { client.Update(); return len(client.events.failures(nobody)) == i+1 })
		}
		reason := client.awaitFailure(nobody)
		require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(reason))
		require.ErrorIs(s, reason, refused)
		up, down := client.events.counts()
		require.Zero(s, up)
		require.Equal(s, 10, down)
		require.EqualValues(s, 10, client.Stats().ConnectsFailed)
		require.Zero(s, client.NumberOfConnections())
		require.False(s, client.IsConnectedTo(nobody))
		s.connect(client, s.server(driver.Config{}))
	}
}

// churn: connections that come and go from all sides at once have their events, see recorder.check.
func churn(s *suite) {
	server := s.server(driver.Config{})
	var group sync.WaitGroup
	var stop atomic.Bool
	for i := range 6 {
		client := s.client(driver.Config{EventLoops: 1})
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; n < s.amount(100); n++ {
				err := client.ConnectTo(server.addr())
				assert.NoError(s, err)
				if n%2 == 0 {
					pace(settledSoon)
				}
				if err := client.DisconnectFrom(server.addr()); err != nil && i%2 == 0 {
					assert.ErrorIs(s, err, driver.ErrNotConnected) // the server was faster
				}
				assert.True(s, eventually(func() bool {
					st := client.Stats()
					return st.Dialled+st.ConnectsFailed == uint64(n+1) && st.Disconnected == st.Dialled
				}), "the end of a connection")
			}
		}()
	}
	done := s.background("kicking", func() {
		for !stop.Load() {
			for c := range server.Conns() {
				c.Close(errKicked)
			}
			pace(settledSoon)
		}
	})
	group.Wait()
	stop.Store(true)
	done()
	s.await("all ends", func() bool { st := server.Stats(); return st.Disconnected == st.Accepted })
}

// onUpdateClose: a subscriber that Update calls, on the application's own goroutine, may close the driver. Those behind it still have
// each connection's events in their order.
func onUpdateClose(s *suite) {
	server := s.bare(driver.Config{Dispatch: driver.DispatchOnUpdate})
	var closing atomic.Bool
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) {
		if !closing.Swap(true) {
			assert.NoError(s, server.Close())
		}
	}})
	var behind recorder
	server.Events().Subscribe(&behind)
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	for range 3 {
		require.NoError(s, s.client(driver.Config{EventLoops: 1}).ConnectTo(server.addr()))
	}
	s.await("the connections", func() bool { return server.NumberOfConnections() == 3 })
	s.must("the Update that closes", func() {
		for !closing.Load() { // a connection counts before its event is queued
			server.Update()
		}
	})
	for _, r := range []*recorder{server.events, &behind} {
		up, down := r.counts()
		require.Equal(s, 3, up)
		require.Equal(s, 3, down)
		r.check(s)
	}
}

// closeOnLoop: a callback on an event loop may not wait for its own end: Close and Shutdown close behind it, and say so.
func closeOnLoop(s *suite) {
	for _, where := range []string{"Established", "Disconnected", "OnPacket"} {
		for _, shutdown := range []bool{false, true} {
			var server *node
			var called atomic.Bool
			closing := func(here string) {
				if here != where || called.Swap(true) {
					return
				}
				if shutdown {
					assert.Error(s, server.Shutdown(context.Background()), where)
				} else {
					assert.Error(s, server.Close(), where)
				}
			}
			server = s.bare(driver.Config{EventLoops: 1, OnPacket: func(driver.Conn, []byte) { closing("OnPacket") }})
			server.Events().Subscribe(driver.SubscriberFuncs{
				Established:  func(driver.Event) { closing("Established") },
				Disconnected: func(driver.Event) { closing("Disconnected") },
			})
			require.NoError(s, server.Initialize(driver.Bind{Address: host}))
			require.NoError(s, server.StartListen(0))
			client := s.bare(driver.Config{EventLoops: 1})
			client.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
				_ = ev.Conn.Send([]byte("x"))
				ev.Conn.Close(nil)
			}})
			require.NoError(s, client.Initialize(driver.Bind{Address: host}))
			require.NoError(s, client.ConnectTo(server.addr()))
			s.await("a driver that is closed", func() bool { return errors.Is(server.Send(somebody, []byte("x")), net.ErrClosed) })
			s.must("Close", func() { assert.NoError(s, server.Close()) })
			s.await("the client's event", func() bool { _, down := client.events.counts(); return down == 1 })
			require.NoError(s, client.Close())
		}
	}
}

// sendAndCloseAtOnce: a peer that connects, says something and leaves, all at once, is heard.
func sendAndCloseAtOnce(s *suite) {
	k := newChecker(1)
	server := s.server(driver.Config{OnPacket: func(_ driver.Conn, p []byte) { k.take(p) }})
	client := s.bare(driver.Config{EventLoops: 1})
	var next atomic.Int64
	client.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
		assert.NoError(s, ev.Conn.Send(numbered(nil, 0, int(next.Add(1))-1, 100)))
		ev.Conn.Close(nil)
	}})
	require.NoError(s, client.Initialize(driver.Bind{Address: host}))
	rounds := s.amount(300)
	for i := range rounds {
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("its end", func() bool { _, down := client.events.counts(); return down == i+1 })
		k.complete(s, "said by who left at once", []int{i + 1})
	}
	s.await("the server's events", func() bool { up, down := server.events.counts(); return up == rounds && down == rounds })
}
