package drivertest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func orderProperties() []property {
	return []property{
		{"OnPacket", func(s *suite) { s.order(true, false, smallPackets) }},
		{"Receive", func(s *suite) { s.order(false, false, smallPackets) }},
		{"OnPacketWithPauses", func(s *suite) { s.order(true, true, mixedPackets) }},
		{"ReceiveWithPauses", func(s *suite) { s.order(false, true, mixedPackets) }},
		{"BothWaysAtOnce", bothWaysAtOnce},
		{"TinyBuffers", tinyBuffers},
		{"SendFromOnPacket", sendFromOnPacket},
		{"EstablishedBeforeTheFirstPacket", establishedBeforeTheFirstPacket},
		{"SendInEstablished", sendInEstablished},
		{"PacketMayBeReused", packetMayBeReused},
	}
}

const orderSenders = 8

// receiving is a configuration whose packets go to take: through OnPacket, or, with start, through Receive.
func receiving(cfg driver.Config, onPacket bool, take func([]byte)) (_ driver.Config, start func(n *node)) {
	if !onPacket {
		return cfg, func(n *node) { n.pumping(take) }
	}
	cfg.OnPacket = func(_ driver.Conn, packet []byte) { take(packet) }
	return cfg, func(*node) {}
}

// order: what eight goroutines send on one connection arrives whole, once, and in order per goroutine.
func (s *suite) order(onPacket, pauses bool, size func(int) int) {
	k := newChecker(orderSenders)
	cfg, start := receiving(driver.Config{}, onPacket, k.take)
	l := s.pair(driver.Config{}, cfg)
	start(l.server)
	if pauses {
		defer s.pausing(l.sc)()
	}
	s.sendFromMany(l.cc, k, s.amount(20000), size)
	s.await("that all are counted", func() bool { return l.cc.Stats().PacketsSent == l.sc.Stats().PacketsReceived })
}

// sendFromMany has eight goroutines send, and waits until all has arrived.
func (s *suite) sendFromMany(c driver.Conn, k *checker, each int, size func(int) int) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make([]int, orderSenders)
	var senders sync.WaitGroup
	for i := range orderSenders {
		sent[i] = each
		senders.Add(1)
		go func() {
			defer senders.Done()
			n, err := sendAll(ctx, c, i, each, size)
			if err != nil && ctx.Err() == nil {
				s.Errorf("sender %d, packet %d: %v", i, n, err)
			}
		}()
	}
	k.complete(s, "eight senders", sent)
	cancel()
	senders.Wait()
}

// pausing pauses and resumes reading at random until what it returns is called.
func (s *suite) pausing(c driver.Conn) (stop func()) {
	var stopping atomic.Bool
	wait := s.background("pausing and resuming", func() {
		for !stopping.Load() {
			c.PauseReading()
			pace(2 * time.Millisecond)
			c.ResumeReading()
			pace(2 * time.Millisecond)
		}
	})
	return func() {
		stopping.Store(true)
		wait()
	}
}

func bothWaysAtOnce(s *suite) {
	up, down := newChecker(orderSenders), newChecker(orderSenders)
	l := s.pair(driver.Config{}, driver.Config{})
	l.server.pumping(up.take)
	l.client.pumping(down.take)
	stopServer, stopClient := s.pausing(l.sc), s.pausing(l.cc)
	wait := s.background("the client's senders", func() { s.sendOnly(l.cc, s.amount(5000)) })
	s.sendFromMany(l.sc, down, s.amount(5000), mixedPackets)
	wait()
	stopServer()
	stopClient()
	up.complete(s, "to the server", full(s.amount(5000)))
}

// sendOnly has eight goroutines send, and is for any goroutine.
func (s *suite) sendOnly(c driver.Conn, each int) {
	var senders sync.WaitGroup
	for i := range orderSenders {
		senders.Add(1)
		go func() {
			defer senders.Done()
			ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
			defer cancel()
			_, err := sendAll(ctx, c, i, each, mixedPackets)
			assert.NoError(s, err)
		}()
	}
	senders.Wait()
}

// full is each for all senders.
func full(each int) []int {
	sent := make([]int, orderSenders)
	for i := range sent {
		sent[i] = each
	}
	return sent
}

// tinyBuffers: buffers of one packet, and socket buffers as small as the system allows, only make it slow.
func tinyBuffers(s *suite) {
	cfg := driver.Config{InboundBufferSize: 1, OutboundBufferSize: 1, MaxPacketSize: 4000}
	k := newChecker(orderSenders)
	server := s.listening(cfg, driver.Bind{Address: host, ReceiveBufferSize: 4096})
	client := s.bound(cfg, driver.Bind{Address: host, SendBufferSize: 4096})
	cc, _ := s.connect(client, server)
	server.pumping(k.take)
	s.sendFromMany(cc, k, s.amount(1000), mixedPackets)
}

func sendFromOnPacket(s *suite) {
	k := newChecker(1)
	l := s.pair(driver.Config{}, driver.Config{
		OutboundBufferSize: 16 << 20,
		OnPacket: func(c driver.Conn, packet []byte) {
			assert.NoError(s, c.Send(packet))
		},
	})
	l.client.pumping(k.take)
	n, err := sendAll(s.context(), l.cc, 0, s.amount(20000), mixedPackets)
	require.NoError(s, err)
	k.complete(s, "an echo", []int{n})
}

// establishedBeforeTheFirstPacket: also where the peer sends at once.
func establishedBeforeTheFirstPacket(s *suite) {
	for range s.amount(100) {
		var up, wrong atomic.Int64
		var packets atomic.Int64
		server := s.bare(driver.Config{EventLoops: 1, OnPacket: func(driver.Conn, []byte) {
			if up.Load() != 1 {
				wrong.Add(1)
			}
			packets.Add(1)
		}})
		server.Events().Subscribe(driver.SubscriberFuncs{Established: func(driver.Event) { up.Add(1) }})
		require.NoError(s, server.Initialize(driver.Bind{Address: host}))
		require.NoError(s, server.StartListen(0))
		client := s.bare(driver.Config{EventLoops: 1})
		client.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
			assert.NoError(s, ev.Conn.Send([]byte("first")))
		}})
		require.NoError(s, client.Initialize(driver.Bind{Address: host}))
		require.NoError(s, client.ConnectTo(server.addr()))
		s.await("the first packet", func() bool { return packets.Load() == 1 })
		require.Zero(s, wrong.Load(), "a packet came before Established")
		require.NoError(s, client.Close())
		require.NoError(s, server.Close())
	}
}

// sendInEstablished: what a subscriber sends comes first.
func sendInEstablished(s *suite) {
	server := s.bare(driver.Config{})
	server.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
		for _, p := range []string{"welcome", "to", "the zone"} {
			assert.NoError(s, ev.Conn.Send([]byte(p)))
		}
	}})
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	require.NoError(s, server.StartListen(0))
	client := s.client(driver.Config{})
	require.NoError(s, client.ConnectTo(server.addr()))
	client.expect("welcome", "to", "the zone")
}

func packetMayBeReused(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	buf := make([]byte, 1000)
	for i := range 50 {
		for j := range buf {
			buf[j] = byte(i)
		}
		require.NoError(s, l.cc.Send(buf))
		clear(buf)
	}
	ctx := s.context()
	for i := range 50 {
		got, _ := l.server.receive(ctx)
		require.Len(s, got, len(buf))
		for _, b := range got {
			require.Equal(s, byte(i), b)
		}
	}
}
