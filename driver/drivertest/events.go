package drivertest

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func eventProperties() []property {
	return []property{
		{"EstablishedThenDisconnected", establishedThenDisconnected},
		{"AllBeforeCloseReturns", allBeforeCloseReturns},
		{"OnUpdateOnly", onUpdateOnly},
		{"OnUpdateIsBounded", onUpdateIsBounded},
		{"OnUpdateRacingClose", onUpdateRacingClose},
		{"OnUpdateFromSeveralGoroutines", onUpdateFromSeveral},
		{"OnUpdateCloseInASubscriber", onUpdateClose},
		{"SubscribeAndCancelInCallbacks", subscribeInCallbacks},
		{"CancelledGetsNothing", cancelledGetsNothing},
		{"PanickingSubscriber", panickingSubscriber},
		{"PanickingOnPacket", panickingOnPacket},
		{"CloseInEstablished", closeInEstablished},
		{"CallsBackInCallbacks", callsInCallbacks},
		{"CloseInACallback", closeOnLoop},
		{"BlockingCallsInACallback", blockingCalls},
		{"HijackInUpdate", hijackInUpdate},
		{"ConnectToFails", connectToFails},
		{"Churn", churn},
	}
}

// establishedThenDisconnected: what the driver says of a connection agrees with its events.
func establishedThenDisconnected(s *suite) {
	server := s.bare(driver.Config{})
	var wrong atomic.Int64
	server.Events().Subscribe(driver.SubscriberFuncs{
		Established: func(ev driver.Event) {
			if !server.IsConnectedTo(ev.Address) {
				wrong.Add(1)
			}
			if c, ok := server.Conn(ev.Address); !ok || c.ID() != ev.Conn.ID() {
				wrong.Add(1)
			}
		},
		Disconnected: func(ev driver.Event) {
			if c, ok := server.Conn(ev.Address); ok && c.ID() == ev.Conn.ID() {
				wrong.Add(1)
			}
			if ev.Conn.Send([]byte("x")) == nil {
				wrong.Add(1)
			}
		},
	})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	client := s.client(driver.Config{})
	for range 20 {
		cc, sc := s.connect(client, server)
		require.Equal(s, 1, server.NumberOfConnections())
		cc.Close(nil)
		require.ErrorIs(s, client.awaitEnd(cc), driver.ErrDisconnected)
		require.ErrorIs(s, server.awaitEnd(sc), driver.ErrPeerClosed)
		require.False(s, client.IsConnectedTo(server.addr()))
		require.Zero(s, server.NumberOfConnections())
	}
	require.Zero(s, wrong.Load(), "events and the driver's state disagree")
}

func allBeforeCloseReturns(s *suite) {
	for _, dispatch := range []driver.Dispatch{driver.DispatchOnLoop, driver.DispatchOnUpdate} {
		server := s.server(driver.Config{Dispatch: dispatch})
		var clients []*node
		for range 8 {
			c := s.client(driver.Config{EventLoops: 1})
			s.connect(c, server)
			clients = append(clients, c)
		}
		require.NoError(s, clients[0].Close())
		s.must("Close", func() { assert.NoError(s, server.Close()) })
		up, down := server.events.counts()
		require.Equal(s, 8, up)
		require.Equal(s, 8, down)
	}
}

// onUpdateOnly: DispatchOnUpdate delivers in Update, on the goroutine that calls it.
func onUpdateOnly(s *suite) {
	server := s.bare(driver.Config{Dispatch: driver.DispatchOnUpdate})
	var updating, wrong atomic.Int64
	var order []string // not guarded: only the goroutine that calls Update writes it
	check := func(ev driver.Event, what string) {
		if updating.Load() == 0 {
			wrong.Add(1)
			return
		}
		order = append(order, what)
	}
	server.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { check(ev, "up") },
		Disconnected: func(ev driver.Event) { check(ev, "down") },
	})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	client := s.client(driver.Config{})
	require.NoError(s, client.ConnectTo(server.addr()))
	s.await("the connection", func() bool { return server.NumberOfConnections() == 1 && client.NumberOfConnections() == 1 })
	// Packets do not wait for events.
	require.NoError(s, client.Send(server.addr(), []byte("hello")))
	server.expect("hello")
	require.NoError(s, client.DisconnectFrom(server.addr()))
	s.await("the end", func() bool { return server.Stats().Disconnected == 1 })
	require.Empty(s, server.events.all(), "events before Update")
	s.await("both events", func() bool {
		updating.Store(1)
		defer updating.Store(0)
		server.Update()
		return len(order) == 2
	})
	require.Equal(s, []string{"up", "down"}, order)
	require.Zero(s, wrong.Load(), "events outside Update")
}

// onUpdateIsBounded: connections wait while their predecessors' events were not collected.
func onUpdateIsBounded(s *suite) {
	server := s.server(driver.Config{Dispatch: driver.DispatchOnUpdate, MaxConnections: 2, EventLoops: 1})
	client := s.client(driver.Config{})
	for range 2 {
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("the connection", func() bool { return server.NumberOfConnections() == 1 && client.NumberOfConnections() == 1 })
		require.NoError(s, client.DisconnectFrom(server.addr()))
		s.await("the end", func() bool {
			return server.NumberOfConnections() == 0 && client.Stats().Disconnected == client.Stats().Dialled
		})
	}
	s.await("both ends", func() bool { return server.Stats().Disconnected == 2 })
	waiting := s.client(driver.Config{})
	require.NoError(s, waiting.ConnectTo(server.addr()))
	require.ErrorIs(s, server.ConnectTo(waiting.addr()), driver.ErrTooManyConnections)
	require.EqualValues(s, 2, server.Stats().Accepted)
	s.await("the one who waits", func() bool { server.Update(); return server.Stats().Accepted == 3 })
	s.await("its connection", func() bool { return waiting.IsConnectedTo(server.addr()) })
}

// onUpdateRacingClose: an Update under way is done, or its events come later, but all before Close returns, and in order.
func onUpdateRacingClose(s *suite) {
	for range s.amount(50) {
		server := s.bare(driver.Config{Dispatch: driver.DispatchOnUpdate, EventLoops: 1})
		inEstablished, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var delivered atomic.Bool
		var early atomic.Int64
		server.Events().Subscribe(driver.SubscriberFuncs{
			Established: func(driver.Event) {
				once.Do(func() { close(inEstablished) })
				<-release
				delivered.Store(true)
			},
			Disconnected: func(driver.Event) {
				if !delivered.Load() {
					early.Add(1)
				}
			},
		})
		require.NoError(s, server.Initialize(driver.Bind{Address: host}))
		require.NoError(s, server.StartListen(0))
		client := s.client(driver.Config{EventLoops: 1})
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("the connection", func() bool { return server.NumberOfConnections() == 1 })
		updating := s.background("the Update that delivers Established", func() {
			for server.Update(); !delivered.Load(); server.Update() { // a connection counts before its event is queued
				pace(settledSoon)
			}
		})
		s.must("Established", func() { <-inEstablished })
		var returned atomic.Bool
		closing := s.background("Close", func() {
			assert.NoError(s, server.Close())
			returned.Store(true)
		})
		s.await("that Close is under way", func() bool {
			return errors.Is(server.Initialize(driver.Bind{}), net.ErrClosed) && server.NumberOfConnections() == 0
		})
		pace(settledSoon)
		if returned.Load() {
			s.Error("Close returned while an event was being delivered")
		}
		close(release)
		updating()
		closing()
		require.Zero(s, early.Load(), "Disconnected overtook Established")
		require.NoError(s, client.Close())
		if s.Failed() {
			return
		}
	}
}

// onUpdateFromSeveral: events of one connection keep their order, whoever calls Update.
func onUpdateFromSeveral(s *suite) {
	server := s.server(driver.Config{Dispatch: driver.DispatchOnUpdate})
	ctx, cancel := context.WithCancel(context.Background())
	var updaters sync.WaitGroup
	for range 4 {
		updaters.Add(1)
		go func() {
			defer updaters.Done()
			for ctx.Err() == nil {
				server.Update()
				pace(settledSoon)
			}
		}()
	}
	client := s.client(driver.Config{})
	for range s.amount(100) {
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("the connection", func() bool { return client.IsConnectedTo(server.addr()) && server.NumberOfConnections() == 1 })
		require.NoError(s, client.DisconnectFrom(server.addr()))
		s.await("its end", func() bool {
			return client.Stats().Disconnected == client.Stats().Dialled && server.NumberOfConnections() == 0
		})
	}
	s.await("all events", func() bool { _, down := server.events.counts(); return down == s.amount(100) })
	cancel()
	s.must("Update", updaters.Wait)
}

func subscribeInCallbacks(s *suite) {
	server := s.server(driver.Config{})
	var first, nested, self atomic.Int64
	var mu sync.Mutex
	var subs []*driver.Subscription
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) {
		first.Add(1)
		mu.Lock()
		defer mu.Unlock()
		subs = append(subs, server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) { nested.Add(1) }}))
	}})
	var own atomic.Pointer[driver.Subscription]
	own.Store(server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) {
		self.Add(1)
		own.Load().Cancel()
		own.Load().Cancel()
	}}))
	client := s.client(driver.Config{})
	for i := range 4 {
		cc, sc := s.connect(client, server)
		s.await("the subscribers", func() bool { return first.Load() == int64(i+1) })
		cc.Close(nil)
		client.awaitEnd(cc)
		server.awaitEnd(sc)
	}
	// Whether a subscriber that subscribes during an event gets that event is not said.
	require.GreaterOrEqual(s, nested.Load(), int64(0+1+2+3))
	require.LessOrEqual(s, nested.Load(), int64(1+2+3+4))
	require.EqualValues(s, 1, self.Load(), "deliveries after Cancel")
	for _, sub := range subs {
		sub.Cancel()
	}
}

func cancelledGetsNothing(s *suite) {
	server := s.server(driver.Config{})
	var got atomic.Int64
	sub := server.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(driver.Event) { got.Add(1) },
		Disconnected: func(driver.Event) { got.Add(1) },
	})
	client := s.client(driver.Config{})
	cc, sc := s.connect(client, server)
	s.await("Established", func() bool { return got.Load() == 1 })
	sub.Cancel()
	cc.Close(nil)
	client.awaitEnd(cc)
	server.awaitEnd(sc)
	s.connect(client, server)
	require.EqualValues(s, 1, got.Load())
}

// panickingSubscriber: the other subscribers get the event, the event's connection ends, and the others do not notice.
func panickingSubscriber(s *suite) {
	for _, dispatch := range []driver.Dispatch{driver.DispatchOnLoop, driver.DispatchOnUpdate} {
		server := s.bare(driver.Config{Dispatch: dispatch})
		var bad atomic.Bool
		panics := func(driver.Event) {
			if bad.Load() {
				panic("a subscriber's")
			}
		}
		server.Events().Subscribe(driver.SubscriberFuncs{Established: panics, Disconnected: panics})
		after := &recorder{}
		server.Events().Subscribe(after)
		require.NoError(s, server.Initialize(driver.Bind{Address: host}))
		require.NoError(s, server.StartListen(0))
		bystander, client := s.client(driver.Config{}), s.client(driver.Config{})
		bc, bs := s.connect(bystander, server)
		bad.Store(true)
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("Established and Disconnected", func() bool {
			server.Update()
			_, down := after.counts()
			return down == 1
		})
		all := after.all()
		require.Len(s, all, 3)
		require.True(s, all[1].up)
		require.ErrorIs(s, all[2].Reason, driver.ErrPanic)
		require.Equal(s, all[1].Conn.ID(), all[2].Conn.ID())
		require.EqualValues(s, 2, server.Stats().Panics)
		(&link{bystander, server, bc, bs}).talks("all the same")
		bad.Store(false)
		s.await("the client's end", func() bool { _, down := client.events.counts(); return down == 1 })
		s.connect(client, server)
	}
}

func panickingOnPacket(s *suite) {
	server := s.server(driver.Config{OnPacket: func(c driver.Conn, p []byte) {
		if string(p) == "panic" {
			panic("an application's")
		}
		_ = c.Send(p)
	}})
	victim, other := s.client(driver.Config{}), s.client(driver.Config{})
	vc, vs := s.connect(victim, server)
	oc, _ := s.connect(other, server)
	require.NoError(s, vc.Send([]byte("panic")))
	require.ErrorIs(s, server.awaitEnd(vs), driver.ErrPanic)
	victim.awaitEnd(vc)
	require.NoError(s, oc.Send([]byte("undisturbed")))
	other.expect("undisturbed")
	require.EqualValues(s, 1, server.Stats().Panics)
	s.connect(victim, server)
}
