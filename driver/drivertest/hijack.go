package drivertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func hijackProperties() []property {
	return []property{
		{"BothEndsTalkOn", hijackBothEnds},
		{"UnreadBytesComeFirst", hijackUnread},
		{"PartialPacketComesFirst", hijackPartial},
		{"PartialPacketWithOnPacket", hijackPartialOnPacket},
		{"QueuedBytesAreWritten", hijackQueued},
		{"FullInboundBuffer", hijackFull},
		{"PausedConnection", hijackPaused},
		{"WhileReceiving", hijackWhileReceiving},
		{"WhileSending", hijackWhileSending},
		{"Deadlines", hijackDeadlines},
		{"WriteDeadline", hijackWriteDeadline},
		{"ClosedConnection", hijackClosed},
		{"Twice", hijackTwice},
		{"RacingClose", hijackRacingClose},
		{"FailsWhileClosing", hijackFailsWhileClosing},
	}
}

// hijack takes c out of its driver. The property fails where that does not work.
func (s *suite) hijack(c driver.Conn) (nc net.Conn) {
	s.Helper()
	s.must("Hijack", func() {
		var err error
		if nc, err = c.Hijack(); err != nil {
			s.Errorf("Hijack: %v", err)
		}
	})
	if nc == nil {
		s.FailNow()
	}
	s.Cleanup(func() { nc.Close() })
	require.NoError(s, nc.SetReadDeadline(time.Now().Add(patience)))
	return nc
}

// readFrame reads a packet of the default framing. Any goroutine.
func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, packet)
	return packet, err
}

func frame(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

// expectFrames reads count numbered packets with bodies of 100 bytes.
func (s *suite) expectFrames(r io.Reader, sender, first, count int) {
	s.Helper()
	for n := range count {
		packet, err := readFrame(r)
		require.NoError(s, err, "packet %d", first+n)
		require.Equal(s, numbered(nil, sender, first+n, 100), packet)
	}
}

// rest reads the frames of a net.Conn until its end or a packet of another sender than sender.
func rest(nc net.Conn, k *checker) error {
	for {
		packet, err := readFrame(nc)
		if err != nil {
			return err
		}
		k.take(packet)
	}
}

func hijackBothEnds(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	l.talks("before")
	a, b := s.hijack(l.cc), s.hijack(l.sc)
	require.ErrorIs(s, l.client.awaitEnd(l.cc), driver.ErrHijacked)
	require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrHijacked)
	require.Zero(s, l.client.NumberOfConnections())
	require.False(s, l.client.IsConnectedTo(l.server.addr()))
	require.Equal(s, l.cc.LocalAddr().String(), a.LocalAddr().String())
	require.Equal(s, l.cc.RemoteAddr().String(), a.RemoteAddr().String())

	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = byte(i * 7 / 3)
	}
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		wait := s.background("writing", func() {
			_, err := way[0].Write(text)
			assert.NoError(s, err)
		})
		got := make([]byte, len(text))
		_, err := io.ReadFull(way[1], got)
		require.NoError(s, err)
		require.Equal(s, text, got)
		wait()
	}
	// The drivers live on, without them.
	require.NoError(s, l.client.Close())
	require.NoError(s, l.server.Close())
	_, err := a.Write([]byte("on"))
	require.NoError(s, err)
	got := make([]byte, 2)
	_, err = io.ReadFull(b, got)
	require.NoError(s, err)
	require.NoError(s, a.Close())
	n, err := b.Read(got)
	require.Zero(s, n)
	require.ErrorIs(s, err, io.EOF)
}

// hijackUnread: some received by the application, some in the inbox, some in the kernel, some not yet sent.
func hijackUnread(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	for n := range 30 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, n, 100)))
	}
	s.await("packets in the inbox", func() bool { return l.sc.Stats().PacketsReceived == 30 })
	ctx := s.context()
	for n := range 10 {
		got, _ := l.server.receive(ctx)
		require.Equal(s, numbered(nil, 0, n, 100), got)
	}
	for n := range 30 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, 30+n, 100)))
	}
	nc := s.hijack(l.sc)
	for n := range 30 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, 60+n, 100)))
	}
	s.expectFrames(nc, 0, 10, 80)
	n, _, err := l.server.Receive(make([]byte, 1000))
	require.NoError(s, err)
	require.Zero(s, n, "a packet that went with the connection")
	_, err = nc.Write(frame([]byte("back")))
	require.NoError(s, err)
	l.client.expect("back")
}

// hijackPartial: the peer has sent half of a packet.
func hijackPartial(s *suite) { s.hijackHalf(driver.Config{}) }

func hijackPartialOnPacket(s *suite) {
	s.hijackHalf(driver.Config{OnPacket: func(driver.Conn, []byte) {}})
}

func (s *suite) hijackHalf(cfg driver.Config) {
	l := s.pair(driver.Config{Framing: raw{}}, cfg)
	whole := numbered(nil, 0, 0, 100)
	require.NoError(s, l.cc.Send(frame(whole)))
	s.await("the packet", func() bool { return l.sc.Stats().PacketsReceived == 1 })
	if cfg.OnPacket == nil {
		l.server.expect(string(whole))
	}
	f := frame(numbered(nil, 0, 1, 100))
	require.NoError(s, l.cc.Send(f[:50]))
	s.await("half a packet", func() bool { return l.server.Stats().BytesReceived >= uint64(len(frame(whole))+50) })
	nc := s.hijack(l.sc)
	got := make([]byte, 50)
	_, err := io.ReadFull(nc, got)
	require.NoError(s, err)
	require.Equal(s, f[:50], got)
	require.NoError(s, l.cc.Send(f[50:]))
	got = make([]byte, len(f)-50)
	_, err = io.ReadFull(nc, got)
	require.NoError(s, err)
	require.Equal(s, f[50:], got)
}

// hijackQueued: what is queued is written before Hijack returns, also to a peer that is slow.
func hijackQueued(s *suite) {
	server := s.listening(driver.Config{InboundBufferSize: 4096}, narrow)
	client := s.bound(driver.Config{OutboundBufferSize: 1 << 20}, narrow)
	cc, sc := s.connect(client, server)
	sc.PauseReading()
	sent := s.fill(cc, 0, 0, 500)
	require.NotZero(s, cc.Stats().OutboundBuffered)
	var nc net.Conn
	wait := s.background("Hijack", func() {
		var err error
		nc, err = cc.Hijack()
		assert.NoError(s, err)
	})
	sc.ResumeReading()
	k := newChecker(1)
	server.pumping(k.take)
	wait()
	require.NotNil(s, nc)
	defer nc.Close()
	_, err := nc.Write(frame(numbered(nil, 0, sent, 500)))
	require.NoError(s, err)
	k.complete(s, "queued before Hijack", []int{sent + 1})
}

func hijackFull(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{InboundBufferSize: 2000})
	sent := s.fill(l.cc, 0, 0, 100)
	require.True(s, l.sc.Stats().Paused)
	nc := s.hijack(l.sc)
	s.expectFrames(nc, 0, 0, sent)
}

func hijackPaused(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	l.sc.PauseReading()
	l.sc.ResumeReading()
	l.sc.PauseReading()
	for n := range 10 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, n, 100)))
	}
	nc := s.hijack(l.sc)
	s.expectFrames(nc, 0, 0, 10)
	l.sc.ResumeReading()
	require.NoError(s, l.cc.Send(numbered(nil, 0, 10, 100)))
	s.expectFrames(nc, 0, 10, 1)
}

// hijackWhileReceiving: each packet is received or read, none is both or neither.
func hijackWhileReceiving(s *suite) {
	for range s.amount(50) {
		k := newChecker(1)
		cfg := driver.Config{EventLoops: 1, InboundBufferSize: 2000}
		l := s.pair(driver.Config{EventLoops: 1}, cfg)
		const packets = 2000
		hijacked := make(chan struct{})
		ctx := s.context()
		waitSender := s.background("the sender", func() {
			_, err := sendAll(ctx, l.cc, 0, packets, smallPackets)
			assert.NoError(s, err)
			s.closes("Hijack", hijacked)
			l.cc.Close(nil)
		})
		cancel := l.server.pumping(k.take)
		s.await("packets", func() bool { return k.total() > 20 })
		nc := s.hijack(l.sc)
		close(hijacked)
		cancel() // after it, what was received has been taken
		require.ErrorIs(s, rest(nc, k), io.EOF)
		waitSender()
		k.complete(s, "received or read", []int{packets})
		require.NoError(s, l.client.Close())
		require.NoError(s, l.server.Close())
	}
}

// hijackWhileSending: what Send took comes before what is written afterwards.
func hijackWhileSending(s *suite) {
	for range s.amount(50) {
		l := s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
		k := newChecker(orderSenders + 1)
		l.server.pumping(k.take)
		sent := make([]int, orderSenders+1)
		ctx := s.context()
		var senders sync.WaitGroup
		for i := range orderSenders {
			senders.Add(1)
			go func() {
				defer senders.Done()
				var err error
				sent[i], err = sendAll(ctx, l.cc, i, 1<<30, mixedPackets)
				assert.ErrorIs(s, err, net.ErrClosed)
			}()
		}
		s.await("packets", func() bool { return k.total() > 50 })
		nc := s.hijack(l.cc)
		s.must("senders that end with Hijack", senders.Wait)
		_, err := nc.Write(frame(numbered(nil, orderSenders, 0, 5)))
		require.NoError(s, err)
		sent[orderSenders] = 1
		k.complete(s, "sent before Hijack", sent)
		require.NoError(s, nc.Close())
		require.NoError(s, l.client.Close())
		require.NoError(s, l.server.Close())
	}
}

func hijackDeadlines(s *suite) {
	l := s.pair(driver.Config{IdleTimeout: 2 * time.Second}, driver.Config{})
	a, b := s.hijack(l.cc), s.hijack(l.sc)
	if s.secure {
		// A write that timed out is final for a tls.Conn.
		require.NoError(s, b.SetReadDeadline(time.Now()))
	} else {
		require.NoError(s, b.SetDeadline(time.Now()))
	}
	var buf [1]byte
	s.must("Read with a deadline", func() {
		_, err := b.Read(buf[:])
		assert.ErrorIs(s, err, os.ErrDeadlineExceeded)
	})
	require.NoError(s, b.SetDeadline(time.Time{}))
	_, err := a.Write([]byte("x"))
	require.NoError(s, err)
	s.must("Read without a deadline", func() {
		_, err := b.Read(buf[:])
		assert.NoError(s, err)
	})
	// The driver's own time limits do not apply any more.
	require.NoError(s, a.SetReadDeadline(time.Now().Add(2500*time.Millisecond)))
	_, err = a.Read(buf[:])
	require.ErrorIs(s, err, os.ErrDeadlineExceeded)
}

// hijackWriteDeadline: the peer does not read, a write times out, and the connection goes on. For a tls.Conn that is the last
// write, and it can still be read.
func hijackWriteDeadline(s *suite) {
	client, server := s.bound(driver.Config{}, narrow), s.listening(driver.Config{}, narrow)
	cc, sc := s.connect(client, server)
	a, b := s.hijack(cc), s.hijack(sc)
	require.NoError(s, b.SetWriteDeadline(time.Now().Add(settled)))
	text := make([]byte, 64<<20)
	for i := range text {
		text[i] = byte(i * 7 / 3)
	}
	written := 0
	s.must("Write with a deadline", func() {
		var err error
		written, err = b.Write(text)
		assert.ErrorIs(s, err, os.ErrDeadlineExceeded)
	})
	require.Less(s, written, len(text))
	require.NoError(s, b.SetWriteDeadline(time.Time{}))
	_, err := a.Write([]byte("x"))
	require.NoError(s, err)
	var buf [1]byte
	_, err = b.Read(buf[:])
	require.NoError(s, err)
	if s.secure {
		return
	}
	wait := s.background("Write without a deadline", func() {
		_, err := b.Write(text[written : written+1<<20])
		assert.NoError(s, err)
	})
	got := make([]byte, written+1<<20)
	_, err = io.ReadFull(a, got)
	require.NoError(s, err)
	require.True(s, bytes.Equal(text[:len(got)], got))
	wait()
}

func hijackClosed(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	l.cc.Close(nil)
	for _, n := range []*node{l.client, l.server} {
		c := l.cc
		if n == l.server {
			c = l.sc
			n.awaitEnd(c)
		}
		s.must("Hijack of a closed connection", func() {
			nc, err := c.Hijack()
			assert.Nil(s, nc)
			assert.ErrorIs(s, err, net.ErrClosed)
			assert.Equal(s, driver.ErrSocketClose, driver.CodeOf(err))
		})
	}
}

// hijackTwice: one of several gets it, and a handle is then nobody's.
func hijackTwice(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	var mu sync.Mutex
	var got []net.Conn
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			nc, err := l.sc.Hijack()
			if err != nil {
				assert.ErrorIs(s, err, net.ErrClosed)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, nc)
		}()
	}
	s.must("Hijack", all.Wait)
	require.Len(s, got, 1)
	defer got[0].Close()
	require.ErrorIs(s, l.sc.Send([]byte("x")), net.ErrClosed)
	l.sc.Close(errKicked)
	l.sc.PauseReading()
	_, err := got[0].Write(frame([]byte("still there")))
	require.NoError(s, err)
	l.client.expect("still there")
	require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrHijacked)
}

// hijackRacingClose: whoever comes first, nothing hangs and (see runProperty) nothing leaks.
func hijackRacingClose(s *suite) {
	for i := range s.amount(100) {
		l := s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
		wait := s.background("Hijack", func() {
			if nc, err := l.cc.Hijack(); err == nil {
				nc.Close()
			} else {
				assert.ErrorIs(s, err, net.ErrClosed)
			}
		})
		switch i % 3 {
		case 0:
			s.must("Close", func() { assert.NoError(s, l.client.Close()) })
		case 1:
			l.cc.Close(nil)
		case 2:
			s.must("Close", func() { assert.NoError(s, l.server.Close()) })
		}
		wait()
		s.must("Close", func() {
			assert.NoError(s, l.client.Close())
			assert.NoError(s, l.server.Close())
		})
	}
}

// hijackFailsWhileClosing: a Close that comes during a Hijack which then fails, since the peer is gone, is not forgotten.
func hijackFailsWhileClosing(s *suite) {
	for range 4 {
		server := s.listening(lingering(), narrow)
		nc := s.dialRaw(server)
		s.sendRaw(nc, nil, "hello")
		server.expect("hello")
		c, ok := server.Conn(nc.LocalAddr().(*net.TCPAddr).AddrPort())
		require.True(s, ok)
		c.PauseReading()
		s.fill(c, 0, 0, 1000)
		wait := s.background("Hijack", func() {
			if hijacked, err := c.Hijack(); err == nil {
				hijacked.Close()
			}
		})
		s.await("Hijack under way", func() bool { return errors.Is(c.Send([]byte("x")), net.ErrClosed) })
		c.Close(errKicked)
		require.NoError(s, nc.(*net.TCPConn).SetLinger(0))
		require.NoError(s, nc.Close())
		wait()
		server.awaitEnd(c)
		s.must("Shutdown", func() { assert.NoError(s, server.Shutdown(context.Background())) })
	}
}
