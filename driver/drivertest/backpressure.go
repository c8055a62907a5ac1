package drivertest

import (
	"context"
	"math"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/loop/tcp"
)

func backpressureProperties() []property {
	return []property{
		{"NobodyReceives", nobodyReceives},
		{"BoundedMemory", boundedMemory},
		{"FullInboundBufferPausesOnlyItsConnection", fullPausesOnlyItself},
		{"PauseReadingHoldsThePeerUp", pauseReading},
		{"PauseReadingAndAFullBuffer", pauseReadingAndFull},
		{"SendIsAllOrNothing", sendAllOrNothing},
		{"AnsweredPacketsTakeNoRoom", answeredTakeNoRoom},
		{"SendContextEnds", sendContextEnds},
		{"SendContextManyWaiters", sendContextManyWaiters},
		{"LargestPacketThroughSmallBuffers", largestThroughSmallBuffers},
		{"PeerEndsWhileNotRead", peerEndsWhileNotRead},
		{"BreaksWhilePaused", breaksWhilePaused},
	}
}

// nobodyReceives: the sender stalls, and once there is somebody who receives every byte arrives.
func nobodyReceives(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	sent := s.fill(l.cc, 0, 0, 900)
	require.True(s, l.sc.Stats().Paused, "reading from a connection with a full inbound buffer goes on")
	rejected := l.client.Stats().SendsRejected
	require.NotZero(s, rejected)

	ctx, cancel := context.WithCancel(context.Background())
	wait := s.background("SendContext to a full connection", func() {
		err := l.cc.SendContext(ctx, numbered(nil, 0, 1<<20, 900))
		assert.ErrorIs(s, err, context.Canceled)
		assert.Equal(s, driver.ErrSend, driver.CodeOf(err))
	})
	cancel()
	wait()
	require.LessOrEqual(s, l.client.Stats().SendsRejected, rejected+1, "tries of one SendContext count as packets")

	k := newChecker(1)
	l.server.pumping(k.take)
	k.complete(s, "nobody received for a while", []int{sent})
	more, err := sendAll(s.context(), l.cc, 1, 0, smallPackets)
	require.NoError(s, err)
	require.Zero(s, more)
	s.await("reading to go on", func() bool { return !l.sc.Stats().Paused })
	require.LessOrEqual(s, l.client.Stats().SendsRejected, rejected+1, "what SendContext waited for counts as rejected")
	require.NoError(s, l.cc.SendContext(s.context(), numbered(nil, 0, sent, 10)))
	k.complete(s, "afterwards", []int{sent + 1})
}

// boundedMemory: four stalled pairs in both directions take less than 2 MiB each, whatever the peers do.
func boundedMemory(s *suite) {
	const pairs = 4
	var links [pairs]*link
	for i := range links {
		links[i] = s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
	}
	before := heap()
	sent := make([]int, pairs)
	for i, l := range links {
		sent[i] = s.fill(l.cc, 0, 0, 500)
	}
	growth := heap() - before
	s.Logf("heap growth of a stalled pair: %d KiB", growth/pairs>>10)
	require.Less(s, growth, pairs*2<<20, "heap growth of %d pairs", pairs)
	for i, l := range links {
		st := l.cc.Stats()
		require.LessOrEqual(s, st.OutboundBuffered, 2*driver.DefaultOutboundBufferSize)
		// What one read of the socket brings comes on top of the limit.
		require.LessOrEqual(s, l.sc.Stats().InboundBuffered, 4*driver.DefaultInboundBufferSize)
		k := newChecker(1)
		l.server.pumping(k.take)
		k.complete(s, "a stalled pair", sent[i:i+1])
	}
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func fullPausesOnlyItself(s *suite) {
	server := s.server(driver.Config{InboundBufferSize: 4096, EventLoops: 1})
	flood, quiet := s.client(driver.Config{EventLoops: 1}), s.client(driver.Config{EventLoops: 1})
	fc, fs := s.connect(flood, server)
	qc, qs := s.connect(quiet, server)
	sent := s.fill(fc, 0, 0, 500)
	require.True(s, fs.Stats().Paused)
	for i := range 10 {
		require.NoError(s, qc.Send(numbered(nil, 1, i, 10)))
		s.await("the quiet one's packet", func() bool { return qs.Stats().PacketsReceived == uint64(i+1) })
		require.NoError(s, fs.Send([]byte("the other way is open")))
		flood.expect("the other way is open")
	}
	require.False(s, qs.Stats().Paused)
	k := newChecker(2)
	server.pumping(k.take)
	k.complete(s, "one full, one not", []int{sent, 10})
}

func pauseReading(s *suite) {
	for _, onPacket := range []bool{true, false} {
		k := newChecker(1)
		cfg, start := receiving(driver.Config{}, onPacket, k.take)
		server := s.listening(cfg, narrow)
		client := s.bound(driver.Config{}, narrow)
		cc, sc := s.connect(client, server)
		start(server)
		sc.PauseReading()
		sc.PauseReading()
		require.True(s, sc.Stats().Paused)
		sent := s.fill(cc, 0, 0, 700)
		require.Less(s, k.total(), sent, "everything came through PauseReading")
		came := k.total()
		sent += s.fill(cc, 0, sent, 700)
		require.Equal(s, came, k.total(), "packets come in spite of PauseReading")
		require.NoError(s, sc.Send([]byte("the other way is open")))
		client.expect("the other way is open")
		sc.ResumeReading()
		k.complete(s, "after ResumeReading", []int{sent})
		require.False(s, sc.Stats().Paused)
	}
}

// pauseReadingAndFull: the two reasons for not reading do not lift one another.
func pauseReadingAndFull(s *suite) {
	server := s.listening(driver.Config{InboundBufferSize: 2000}, narrow)
	client := s.bound(driver.Config{}, narrow)
	cc, sc := s.connect(client, server)
	sent := s.fill(cc, 0, 0, 700)
	sc.PauseReading()
	k := newChecker(1)
	server.pumping(k.take)
	s.await("what was read already", func() bool { return sc.Stats().InboundBuffered < 705 })
	require.True(s, sc.Stats().Paused, "receiving lifted PauseReading")
	sent += s.fill(cc, 0, sent, 700)
	require.Less(s, k.total(), sent)
	sc.ResumeReading()
	k.complete(s, "after ResumeReading", []int{sent})
}

// sendAllOrNothing: of a packet that Send refuses nothing is sent, also with many senders at the limit.
func sendAllOrNothing(s *suite) {
	k := newChecker(orderSenders)
	server := s.listening(driver.Config{InboundBufferSize: 4096}, narrow)
	client := s.bound(driver.Config{OutboundBufferSize: 8192, MaxPacketSize: 4096}, narrow)
	cc, _ := s.connect(client, server)
	server.pumping(k.take)
	sent := make([]int, orderSenders)
	var senders sync.WaitGroup
	for i := range orderSenders {
		senders.Add(1)
		go func() {
			defer senders.Done()
			var buf []byte
			for range s.amount(5000) {
				buf = numbered(buf[:0], i, sent[i], sent[i]*37%4000)
				if err := cc.Send(buf); err == nil {
					sent[i]++
				} else if !assert.ErrorIs(s, err, driver.ErrOutboundFull) {
					return
				} else {
					runtime.Gosched()
				}
			}
		}()
	}
	s.must("Send", senders.Wait)
	require.NotZero(s, client.Stats().SendsRejected)
	k.complete(s, "what Send took", sent)
}

// answeredTakeNoRoom: what the peer has is not in the outbound buffer any more, which has room for the next packets at once.
func answeredTakeNoRoom(s *suite) {
	const size, together = 1000, 4
	var turns atomic.Int64
	done := make(chan struct{})
	// Each side in turn fills its buffer with packets, the last of which gives the turn to the other.
	cfg := driver.Config{EventLoops: 1, OutboundBufferSize: together * (size + 2)}
	cfg.OnPacket = func(c driver.Conn, packet []byte) {
		if packet[0] != together-1 || turns.Load() == 0 {
			return
		}
		failed := false
		for i := range together {
			packet := make([]byte, size)
			packet[0] = byte(i)
			failed = failed || !assert.NoError(s, c.Send(packet))
		}
		if failed {
			turns.Store(1)
		}
		if turns.Add(-1) == 0 {
			close(done)
		}
	}
	l := s.pair(cfg, cfg)
	turns.Store(int64(s.amount(5000)))
	require.NoError(s, l.cc.Send([]byte{together - 1}))
	s.closes("the last turn", done)
}

// sendContextEnds: whoever waits for room is told when there will be none.
func sendContextEnds(s *suite) {
	for name, end := range map[string]func(l *link){
		"Conn.Close":            func(l *link) { l.cc.Close(nil) },
		"Driver.Close":          func(l *link) { assert.NoError(s, l.client.Close()) },
		"the peer's end":        func(l *link) { assert.NoError(s, l.server.Close()) },
		"the peer's Conn.Close": func(l *link) { l.sc.Close(nil) },
	} {
		cfg := driver.Config{EventLoops: 1, LingerTimeout: 100 * time.Millisecond}
		l := s.pair(cfg, cfg)
		l.sc.PauseReading()
		s.fill(l.cc, 0, 0, 1000)
		var waiters sync.WaitGroup
		for range 4 {
			waiters.Add(1)
			go func() {
				defer waiters.Done()
				for {
					if err := l.cc.SendContext(context.Background(), make([]byte, 1000)); err != nil {
						assert.ErrorIs(s, err, net.ErrClosed, name)
						assert.Equal(s, driver.ErrSend, driver.CodeOf(err), name)
						return
					}
				}
			}()
		}
		end(l)
		s.must("SendContext after "+name, waiters.Wait)
	}
}

// sendContextManyWaiters: room for all wakes all.
func sendContextManyWaiters(s *suite) {
	l := s.pair(driver.Config{OutboundBufferSize: 2000}, driver.Config{})
	sent := s.fill(l.cc, 0, 0, 1000)
	const waiters = 32
	var group sync.WaitGroup
	ctx := s.context()
	for i := range waiters {
		group.Add(1)
		go func() {
			defer group.Done()
			assert.NoError(s, l.cc.SendContext(ctx, numbered(nil, 1+i, 0, 1000)))
		}()
	}
	k := newChecker(1 + waiters)
	l.server.pumping(k.take)
	want := make([]int, 1+waiters)
	for i := range want {
		want[i] = 1
	}
	want[0] = sent
	k.complete(s, "many waiters", want)
	s.must("SendContext", group.Wait)
}

// largestThroughSmallBuffers: a buffer smaller than a packet holds one all the same.
func largestThroughSmallBuffers(s *suite) {
	cfg := driver.Config{InboundBufferSize: 1, OutboundBufferSize: 1}
	l := s.pair(cfg, cfg)
	k := newChecker(1)
	l.server.pumping(k.take)
	largest := l.client.MaxSendSize()
	require.Equal(s, driver.DefaultMaxPacketSize, largest)
	n, err := sendAll(s.context(), l.cc, 0, 50, func(n int) int {
		if n%2 == 0 {
			return largest - numberedHeader
		}
		return 0
	})
	require.NoError(s, err)
	k.complete(s, "largest packets", []int{n})
}

// peerEndsWhileNotRead: what the peer sent before it ended waits in the kernel, and can still be received.
func peerEndsWhileNotRead(s *suite) {
	for _, onPacket := range []bool{true, false} {
		k := newChecker(1)
		cfg, start := receiving(driver.Config{}, onPacket, k.take)
		server := s.server(cfg)
		client := s.client(lingering())
		cc, sc := s.connect(client, server)
		start(server)
		sc.PauseReading()
		n, err := sendAll(s.context(), cc, 0, 500, smallPackets)
		require.NoError(s, err)
		s.await("everything in the kernel", func() bool { return cc.Stats().OutboundBuffered == 0 })
		cc.Close(nil)
		s.await("the end of sending", func() bool { return !client.IsConnectedTo(server.addr()) })
		sc.ResumeReading()
		k.complete(s, "sent before the end", []int{n})
		require.ErrorIs(s, server.awaitEnd(sc), driver.ErrPeerClosed)
	}
}

// breaksWhilePaused: what the peer sent before it went can still be read, however long this side pauses, though this side's own
// packets no longer get anywhere.
func breaksWhilePaused(s *suite) {
	const linger, count = 50 * time.Millisecond, 50
	var got atomic.Int64
	server := s.server(driver.Config{LingerTimeout: linger, OnPacket: func(driver.Conn, []byte) { got.Add(1) }})
	nc := s.dialRaw(server)
	peer := s.secured(nc)
	_, err := peer.Write(frame([]byte("first")))
	require.NoError(s, err)
	s.await("the first packet", func() bool { return got.Load() == 1 })
	c, ok := server.Conn(nc.LocalAddr().(*net.TCPAddr).AddrPort())
	require.True(s, ok)
	c.PauseReading()
	s.await("the pause", func() bool { return c.Stats().Paused })
	for range count {
		_, err := peer.Write(frame([]byte("more")))
		require.NoError(s, err)
	}
	s.await("that the kernel has them", func() bool { return unacked(nc.(*net.TCPConn)) == 0 })
	require.NoError(s, nc.Close())
	s.await("that nobody is there to send to", func() bool { return c.Send([]byte("anybody?")) != nil })
	pace(5 * linger)
	c.ResumeReading()
	s.await("the end", func() bool { return server.Stats().Disconnected == 1 })
	require.EqualValues(s, 1+count, got.Load())
}

// unacked is what the other end's kernel has not taken yet; 0 where the system does not tell.
func unacked(nc *net.TCPConn) (n int32) {
	rc, err := nc.SyscallConn()
	if err != nil {
		return 0
	}
	if rc.Control(func(fd uintptr) { n = tcp.Unacked(int(fd)) }) != nil || n == math.MaxInt32 {
		return 0
	}
	return n
}
