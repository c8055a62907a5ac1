package drivertest

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func closingProperties() []property {
	var all []property
	for _, how := range []struct {
		name  string
		close func(s *suite, n *node, c driver.Conn)
	}{
		{"ConnClose", func(_ *suite, _ *node, c driver.Conn) { c.Close(nil) }},
		{"DisconnectFrom", func(s *suite, n *node, c driver.Conn) { assert.NoError(s, n.DisconnectFrom(c.RemoteAddr())) }},
		{"Shutdown", func(s *suite, n *node, _ driver.Conn) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			defer cancel()
			assert.NoError(s, n.Shutdown(ctx))
		}},
	} {
		all = append(all,
			property{how.name + "DeliversToASlowReceive", func(s *suite) { s.closeDelivers(false, how.close) }},
			property{how.name + "DeliversToASlowOnPacket", func(s *suite) { s.closeDelivers(true, how.close) }},
			property{how.name + "WhileSending", func(s *suite) { s.closeWhileSending(how.close) }},
			property{how.name + "WhileThePeerSends", func(s *suite) { s.closeWhileThePeerSends(how.close) }},
		)
	}
	return append(all,
		property{"ReceivedBeforeAnOrderlyEnd", func(s *suite) { s.receivedBeforeTheEnd(false) }},
		property{"ReceivedBeforeAReset", func(s *suite) { s.receivedBeforeTheEnd(true) }},
		property{"HalfOfThePeersLeave", halfLeave},
		property{"PausedConnectionWhosePeerIsGone", pausedWhosePeerIsGone},
		property{"PausedConnectionCloses", pausedCloses},
		property{"SendAndCloseAtOnce", sendAndCloseAtOnce},
		property{"NothingIsReceivedAfterConnClose", nothingAfterConnClose},
		property{"ShutdownGivesUpWithItsContext", shutdownGivesUp},
		property{"CloseDoesNotWaitForThePeer", closeDoesNotWait},
		property{"LingerTimeout", lingerTimeout},
		property{"PeerThatSendsOnAfterTheEnd", sendsOnAfterTheEnd},
	)
}

// lingering is a configuration that holds much and waits for a slow reader as long as the property does.
func lingering() driver.Config {
	return driver.Config{OutboundBufferSize: 1 << 20, LingerTimeout: 2 * patience}
}

// narrow keeps what is on its way out of the kernel's buffers.
var narrow = driver.Bind{Address: host, ReceiveBufferSize: 4096, SendBufferSize: 4096}

// closeDelivers: closing sends what is queued first, however slowly the peer reads.
func (s *suite) closeDelivers(onPacket bool, closing func(*suite, *node, driver.Conn)) {
	const senders = orderSenders
	k := newChecker(senders)
	slow := func(p []byte) {
		k.take(p)
		if p[0] == 0 && p[numberedHeader-1]%16 == 0 {
			pace(500 * time.Microsecond)
		}
	}
	cfg, start := receiving(driver.Config{InboundBufferSize: 4096}, onPacket, slow)
	server := s.listening(cfg, narrow)
	client := s.bound(lingering(), narrow)
	cc, sc := s.connect(client, server)
	sc.PauseReading()

	each := 1000
	var senderGroup sync.WaitGroup
	for i := range senders {
		senderGroup.Add(1)
		go func() {
			defer senderGroup.Done()
			var buf []byte
			for n := range each {
				buf = numbered(buf[:0], i, n, smallPackets(n))
				if !assert.NoError(s, cc.Send(buf)) {
					return
				}
			}
		}()
	}
	s.must("Send", senderGroup.Wait)
	wait := s.background("closing", func() { closing(s, client, cc) })
	sc.ResumeReading()
	start(server)
	k.complete(s, "queued before closing", full(each))
	wait()
	require.ErrorIs(s, server.awaitEnd(sc), driver.ErrPeerClosed)
	client.awaitEnd(cc)
}

// closeWhileSending: a packet that Send took arrives, also when the connection is closed meanwhile.
func (s *suite) closeWhileSending(closing func(*suite, *node, driver.Conn)) {
	for range s.amount(20) {
		k := newChecker(orderSenders)
		server := s.listening(driver.Config{InboundBufferSize: 4096, EventLoops: 1}, narrow)
		cfg := lingering()
		cfg.OutboundBufferSize, cfg.EventLoops = 64<<10, 1
		client := s.bound(cfg, narrow)
		cc, sc := s.connect(client, server)
		cancel := server.pumping(k.take)

		sent := make([]int, orderSenders)
		var senders sync.WaitGroup
		for i := range orderSenders {
			senders.Add(1)
			go func() {
				defer senders.Done()
				sent[i], _ = sendAll(context.Background(), cc, i, 1<<30, mixedPackets)
			}()
		}
		s.await("packets", func() bool { return k.total() > 100 })
		pace(3 * time.Millisecond)
		s.must("closing", func() { closing(s, client, cc) })
		s.must("senders that end with the connection", senders.Wait)
		k.complete(s, "taken by Send", sent)
		require.ErrorIs(s, server.awaitEnd(sc), driver.ErrPeerClosed)
		client.awaitEnd(cc)
		cancel()
		require.NoError(s, client.Close())
		require.NoError(s, server.Close())
	}
}

// closeWhileThePeerSends: what the peer still sends must not make the kernel answer with a reset, which would destroy what
// was queued for it.
func (s *suite) closeWhileThePeerSends(closing func(*suite, *node, driver.Conn)) {
	for range s.amount(20) {
		k := newChecker(1)
		server := s.listening(driver.Config{InboundBufferSize: 4096, EventLoops: 1}, narrow)
		cfg := lingering()
		cfg.EventLoops = 1
		client := s.bound(cfg, narrow)
		cc, sc := s.connect(client, server)
		ctx, stop := context.WithCancel(context.Background())
		wait := s.background("the peer's sender", func() {
			_, _ = sendAll(ctx, sc, 1, 1<<30, mixedPackets)
		})
		cancelClient := client.pumping(func([]byte) {})
		n, err := sendAll(s.context(), cc, 0, 2000, smallPackets)
		require.NoError(s, err)
		waitClosing := s.background("closing", func() { closing(s, client, cc) })
		cancel := server.pumping(k.take)
		k.complete(s, "queued while the peer sends", []int{n})
		waitClosing()
		server.awaitEnd(sc)
		client.awaitEnd(cc)
		stop()
		wait()
		cancelClient()
		cancel()
		require.NoError(s, client.Close())
		require.NoError(s, server.Close())
	}
}

// receivedBeforeTheEnd: packets outlive their connection.
func (s *suite) receivedBeforeTheEnd(reset bool) {
	const packets = 200
	l := s.pair(driver.Config{}, driver.Config{})
	n, err := sendAll(s.context(), l.cc, 0, packets, smallPackets)
	require.NoError(s, err)
	s.await("the packets", func() bool { return l.sc.Stats().PacketsReceived == packets })
	if reset {
		require.NoError(s, l.client.Close())
	} else {
		l.cc.Close(nil)
	}
	l.server.awaitEnd(l.sc)
	require.False(s, l.server.IsConnectedTo(l.sc.RemoteAddr()))
	k := newChecker(1)
	l.server.pumping(k.take)
	k.complete(s, "received before the end", []int{n})
}

// halfLeave: the others do not notice.
func halfLeave(s *suite) {
	const peers = 10
	k := newChecker(peers)
	server := s.server(driver.Config{InboundBufferSize: 8192})
	server.pumping(k.take)
	var clients [peers]*node
	var conns, accepted [peers]driver.Conn
	for i := range peers {
		cfg := lingering()
		cfg.EventLoops = 1
		clients[i] = s.client(cfg)
		conns[i], accepted[i] = s.connect(clients[i], server)
	}
	each := s.amount(5000)
	sent := make([]int, peers)
	var senders sync.WaitGroup
	for i := range peers {
		senders.Add(1)
		go func() {
			defer senders.Done()
			count := each
			if i%2 == 0 {
				count = each / 4 * (i + 2) / peers
			}
			var err error
			sent[i], err = sendAll(context.Background(), conns[i], i, count, mixedPackets)
			assert.NoError(s, err)
			if i%4 == 0 {
				conns[i].Close(nil)
			} else if i%2 == 0 {
				assert.NoError(s, clients[i].DisconnectFrom(server.addr()))
			}
		}()
	}
	s.must("senders", senders.Wait)
	k.complete(s, "half of the peers leave", sent)
	for i := range peers {
		if i%2 == 0 {
			require.ErrorIs(s, server.awaitEnd(accepted[i]), driver.ErrPeerClosed)
		}
	}
	s.await("the others", func() bool { return server.NumberOfConnections() == peers/2 })
}

// pausedWhosePeerIsGone: a connection that is not read from does not see that its peer is gone, but can be closed.
func pausedWhosePeerIsGone(s *suite) {
	for _, full := range []bool{false, true} {
		server := s.listening(driver.Config{InboundBufferSize: 1}, narrow)
		client := s.bound(driver.Config{}, narrow)
		cc, sc := s.connect(client, server)
		if full {
			s.fill(cc, 0, 0, 1000)
		} else {
			sc.PauseReading()
		}
		s.await("the pause", func() bool { return sc.Stats().Paused })
		require.NoError(s, client.Close())
		s.await("that sending fails", func() bool { return sc.Send(make([]byte, 100)) != nil })
		sc.Close(nil)
		server.awaitEnd(sc)
		s.await("the connection is gone", func() bool { return server.NumberOfConnections() == 0 })
	}
}

// pausedCloses: a connection that is not read from closes as any other does, and delivers first.
func pausedCloses(s *suite) {
	for _, full := range []bool{false, true} {
		l := s.pair(driver.Config{}, driver.Config{InboundBufferSize: 1000, OutboundBufferSize: 1 << 20})
		if full {
			s.fill(l.cc, 0, 0, 1000)
		} else {
			l.sc.PauseReading()
		}
		s.await("the pause", func() bool { return l.sc.Stats().Paused })
		for n := range 500 {
			require.NoError(s, l.sc.Send(numbered(nil, 0, n, 1000)))
		}
		l.sc.Close(errKicked)
		k := newChecker(1)
		l.client.pumping(k.take)
		k.complete(s, "queued by a paused connection", []int{500})
		require.ErrorIs(s, l.server.awaitEnd(l.sc), errKicked)
		l.client.awaitEnd(l.cc)
	}
}

// nothingAfterConnClose: Conn.Close in OnPacket is the end of packets, however many came with it.
func nothingAfterConnClose(s *suite) {
	var packets atomic.Int64
	l := s.pair(driver.Config{}, driver.Config{OnPacket: func(c driver.Conn, p []byte) {
		if packets.Add(1) == 3 {
			c.Close(nil)
		}
	}})
	for range 100 {
		if l.cc.Send([]byte("x")) != nil {
			break
		}
	}
	require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrDisconnected)
	require.EqualValues(s, 3, packets.Load())
}

// shutdownGivesUp: a peer that does not read holds Shutdown up until its context is done.
func shutdownGivesUp(s *suite) {
	l := s.pair(lingering(), driver.Config{})
	l.sc.PauseReading()
	s.fill(l.cc, 0, 0, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	wait := s.background("Shutdown", func() {
		err := l.client.Shutdown(ctx)
		assert.ErrorIs(s, err, context.Canceled)
		assert.Equal(s, driver.ErrSocketClose, driver.CodeOf(err))
	})
	s.await("the connection closing", func() bool { return l.client.NumberOfConnections() == 0 })
	cancel()
	wait()
	require.ErrorIs(s, l.client.awaitEnd(l.cc), driver.ErrShutdown)
}

// closeDoesNotWait: Driver.Close is at once, whatever is queued and whoever is paused.
func closeDoesNotWait(s *suite) {
	for _, end := range []string{"sender", "receiver"} {
		l := s.pair(lingering(), driver.Config{InboundBufferSize: 1000})
		s.fill(l.cc, 0, 0, 1000)
		n, c := l.client, l.cc
		if end == "receiver" {
			n, c = l.server, l.sc
		}
		begun := time.Now()
		s.must("Close", func() { assert.NoError(s, n.Close()) })
		require.Less(s, time.Since(begun), patience/10, "Close is at once")
		ev, ok := n.events.end(c)
		require.True(s, ok, "Close returned before Disconnected")
		require.ErrorIs(s, ev.Reason, driver.ErrShutdown)
	}
}

// lingerTimeout: a peer that does not read does not hold a closed connection up for ever, and the reason stays.
func lingerTimeout(s *suite) {
	cfg := lingering()
	cfg.LingerTimeout = 100 * time.Millisecond
	l := s.pair(cfg, driver.Config{})
	l.sc.PauseReading()
	s.fill(l.cc, 0, 0, 1000)
	l.cc.Close(errKicked)
	require.ErrorIs(s, l.client.awaitEnd(l.cc), errKicked)
}

// sendsOnAfterTheEnd: a peer that is turned away and floods on is cut off, long before LingerTimeout.
func sendsOnAfterTheEnd(s *suite) {
	const enough = 128 << 20
	cfg := lingering()
	cfg.OnPacket = func(c driver.Conn, _ []byte) { c.Close(nil) }
	server := s.server(cfg)
	nc := s.dialRaw(server)
	_, err := nc.Write(frame([]byte("a packet, and no TLS record")))
	require.NoError(s, err)
	flood := make([]byte, 64<<10)
	for sent := 0; err == nil && sent < enough; {
		var n int
		n, err = nc.Write(flood)
		sent += n
	}
	require.Error(s, err, "it took everything")
	require.NotErrorIs(s, err, os.ErrDeadlineExceeded)
	s.await("the end", func() bool { return server.NumberOfConnections() == 0 })
}
