package drivertest

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func receiveProperties() []property {
	return []property{
		{"NothingIsZero", receiveNothing},
		{"ConnectionsTakeTurns", takeTurns},
		{"TalkativeDoesNotStarve", talkative},
		{"ShortBuffer", shortBuffer},
		{"WaitForDataWakes", waitWakes},
		{"WaitForDataContext", waitContext},
		{"WaitForDataClose", waitClose},
		{"WaitForDataSeveral", waitSeveral},
		{"SeveralGoroutines", receiveSeveral},
		{"FromOfAClosedConnection", receiveFromClosed},
		{"UnreadHoldsItsPlace", unreadHoldsItsPlace},
	}
}

func receiveNothing(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	for range 3 {
		n, from, err := l.server.Receive(make([]byte, 10))
		require.NoError(s, err)
		require.Zero(s, n)
		require.False(s, from.IsValid())
		n, _, err = l.server.Receive(nil)
		require.NoError(s, err)
		require.Zero(s, n)
	}
}

// crowd is a server, and clients that each have packets numbered packets waiting at it.
func (s *suite) crowd(clients int, packets func(i int) int) (server *node) {
	server = s.server(driver.Config{InboundBufferSize: 1 << 20})
	for i := range clients {
		c := s.client(driver.Config{EventLoops: 1, OutboundBufferSize: 1 << 20})
		cc, sc := s.connect(c, server)
		for n := range packets(i) {
			require.NoError(s, cc.Send(numbered(nil, i, n, 50)))
		}
		s.await("the packets", func() bool { return sc.Stats().PacketsReceived == uint64(packets(i)) })
	}
	return server
}

// takeTurns: of connections that all have packets each gets its turn before anybody gets a second.
func takeTurns(s *suite) {
	const clients, packets = 6, 20
	server := s.crowd(clients, func(int) int { return packets })
	k := newChecker(clients)
	ctx := s.context()
	for range packets {
		round := map[byte]bool{}
		for range clients {
			p, _ := server.receive(ctx)
			require.NotNil(s, p)
			require.False(s, round[p[0]], "somebody's second turn in a round")
			round[p[0]] = true
			k.take(p)
		}
	}
	k.complete(s, "turns", []int{packets, packets, packets, packets, packets, packets})
}

func talkative(s *suite) {
	server := s.crowd(4, func(i int) int {
		if i == 0 {
			return 2000
		}
		return 3
	})
	quiet := 0
	ctx := s.context()
	for range 4 * 3 {
		if p, _ := server.receive(ctx); p[0] != 0 {
			quiet++
		}
	}
	require.Equal(s, 9, quiet)
}

// shortBuffer: the packet stays first in line, and its size is told.
func shortBuffer(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	other := s.client(driver.Config{})
	oc, _ := s.connect(other, l.server)
	require.NoError(s, l.cc.Send(make([]byte, 100)))
	s.await("the packet", func() bool { return l.sc.Stats().PacketsReceived == 1 })
	require.NoError(s, oc.Send([]byte("second in line")))
	s.await("both", func() bool { return l.server.Stats().PacketsReceived == 2 })
	for _, size := range []int{0, 1, 99} {
		n, from, err := l.server.Receive(make([]byte, size))
		require.ErrorIs(s, err, io.ErrShortBuffer)
		require.Equal(s, driver.ErrReceive, driver.CodeOf(err))
		require.Equal(s, 100, n)
		require.Equal(s, l.cc.LocalAddr(), from)
	}
	s.must("WaitForData", func() { assert.NoError(s, l.server.WaitForData(context.Background())) })
	l.server.expect(string(make([]byte, 100)), "second in line")
}

func waitWakes(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	for range s.amount(500) {
		wait := s.background("WaitForData", func() { assert.NoError(s, l.server.WaitForData(context.Background())) })
		require.NoError(s, l.cc.Send([]byte("wake up")))
		wait()
		// It does not take anything, and does not wait while something is there.
		s.must("WaitForData", func() { assert.NoError(s, l.server.WaitForData(context.Background())) })
		n, _, err := l.server.Receive(make([]byte, 10))
		require.NoError(s, err)
		require.Equal(s, 7, n)
	}
}

func waitContext(s *suite) {
	n := s.client(driver.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	wait := s.background("WaitForData", func() {
		err := n.WaitForData(ctx)
		assert.ErrorIs(s, err, context.Canceled)
		assert.Equal(s, driver.ErrReceive, driver.CodeOf(err))
	})
	cancel()
	wait()
	s.must("WaitForData", func() {
		assert.ErrorIs(s, n.WaitForData(ctx), context.Canceled)
		short, stop := context.WithTimeout(context.Background(), time.Millisecond)
		defer stop()
		assert.ErrorIs(s, n.WaitForData(short), context.DeadlineExceeded)
	})
}

func waitClose(s *suite) {
	for i := range s.amount(50) {
		n := s.server(driver.Config{EventLoops: 1})
		var waiting sync.WaitGroup
		for range 4 {
			waiting.Add(1)
			go func() {
				defer waiting.Done()
				err := n.WaitForData(context.Background())
				assert.ErrorIs(s, err, net.ErrClosed)
				assert.Equal(s, driver.ErrReceive, driver.CodeOf(err))
			}()
		}
		if i%2 == 0 {
			pace(time.Millisecond)
		}
		require.NoError(s, n.Close())
		s.must("WaitForData after Close", waiting.Wait)
	}
}

// waitSeveral: as many packets as wait wake as many who wait.
func waitSeveral(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	const waiters = 8
	for range s.amount(50) {
		var all sync.WaitGroup
		ctx := s.context()
		for range waiters {
			all.Add(1)
			go func() {
				defer all.Done()
				p, _ := l.server.receive(ctx)
				assert.NotNil(s, p)
			}()
		}
		for i := range waiters {
			require.NoError(s, l.cc.Send([]byte{byte(i)}))
			if i%3 == 0 {
				pace(100 * time.Microsecond)
			}
		}
		s.must("a packet for each", all.Wait)
	}
}

// receiveSeveral: with several goroutines that receive, each packet goes to one of them, from several connections.
func receiveSeveral(s *suite) {
	const clients, receivers = 4, 4
	server := s.server(driver.Config{InboundBufferSize: 8192})
	each := s.amount(10000)
	var mu sync.Mutex
	seen := make(map[string]int)
	for range receivers {
		server.pumping(func(p []byte) {
			mu.Lock()
			defer mu.Unlock()
			seen[string(p[:numberedHeader])]++
		})
	}
	var senders sync.WaitGroup
	for i := range clients {
		c := s.client(driver.Config{EventLoops: 1})
		cc, _ := s.connect(c, server)
		senders.Add(1)
		ctx := s.context()
		go func() {
			defer senders.Done()
			_, err := sendAll(ctx, cc, i, each, smallPackets)
			assert.NoError(s, err)
		}()
	}
	s.must("senders", senders.Wait)
	s.await("all packets", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == clients*each
	})
	mu.Lock()
	defer mu.Unlock()
	for p, n := range seen {
		require.Equal(s, 1, n, "% x came more than once", p)
	}
}

func receiveFromClosed(s *suite) {
	server := s.server(driver.Config{})
	for i := range 5 {
		c := s.client(driver.Config{EventLoops: 1})
		cc, sc := s.connect(c, server)
		for n := range 3 {
			require.NoError(s, cc.Send(numbered(nil, i, n, 5)))
		}
		cc.Close(nil)
		server.awaitEnd(sc)
	}
	k := newChecker(5)
	server.pumping(k.take)
	k.complete(s, "of closed connections", []int{3, 3, 3, 3, 3})
}

// unreadHoldsItsPlace: what closed connections left is bounded too: it counts against MaxConnections until it is received.
func unreadHoldsItsPlace(s *suite) {
	server := s.server(driver.Config{MaxConnections: 2, EventLoops: 1})
	for range 2 {
		c := s.client(driver.Config{EventLoops: 1})
		cc, sc := s.connect(c, server)
		require.NoError(s, cc.Send([]byte("unread")))
		s.await("the packet", func() bool { return sc.Stats().PacketsReceived == 1 })
		cc.Close(nil)
		server.awaitEnd(sc)
	}
	next := s.client(driver.Config{EventLoops: 1})
	require.NoError(s, next.ConnectTo(server.addr()))
	pace(settledSoon)
	server.expect("unread", "unread")
	s.await("room", func() bool { return server.NumberOfConnections() == 1 })
}
