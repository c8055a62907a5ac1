package drivertest

import (
	"sync"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// raw is a framing without frames: a driver with it is a raw peer of one with the default framing. What it
// sends are the bytes of its packets, what it receives are bytes as they come.
type raw struct{}

var _ driver.Framing = raw{}

func (raw) Overhead() int                         { return 0 }
func (raw) MaxPacketSize() int                    { return driver.DefaultMaxPacketSize }
func (raw) AppendFrame(dst, packet []byte) []byte { return append(dst, packet...) }
func (raw) Split(b []byte, maxPacketSize int) (packet []byte, n int, err error) {
	n = min(len(b), maxPacketSize)
	return b[:n], n, nil
}

func wireProperties() []property {
	return []property{
		{"WhatIsSent", wireSent},
		{"ByteByByte", wireByteByByte},
		{"AnyFragmentation", wireFragments},
		{"FrameThatCannotBe", wireProtocolError},
		{"PacketsBeforeTheFrameThatCannotBe", wireBeforeError},
		{"LargestFrame", wireLargest},
	}
}

// bytesOf collects what a raw peer receives.
type bytesOf struct {
	mu sync.Mutex
	b  []byte
}

func (w *bytesOf) take(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
}

func (w *bytesOf) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b)
}

func (s *suite) awaitBytes(w *bytesOf, want string) {
	s.Helper()
	s.await("bytes", func() bool { return len(w.String()) >= len(want) })
	require.Equal(s, want, w.String())
}

// wireSent: the default framing is GridMate's.
func wireSent(s *suite) {
	l := s.pair(driver.Config{Framing: raw{}}, driver.Config{})
	var got bytesOf
	l.client.pumping(got.take)
	require.NoError(s, l.sc.Send([]byte("hello")))
	require.NoError(s, l.sc.Send([]byte("x")))
	require.NoError(s, l.sc.Send(make([]byte, 300)))
	s.awaitBytes(&got, "\x00\x05hello\x00\x01x\x01\x2c"+string(make([]byte, 300)))
	require.Equal(s, 2, l.server.PacketOverheadSize())
	require.Equal(s, 0, l.client.PacketOverheadSize())
}

func wireByteByByte(s *suite) {
	l := s.pair(driver.Config{Framing: raw{}}, driver.Config{})
	received := uint64(0)
	for _, b := range []byte("\x00\x05hello\x00\x01x\x00\x03end") {
		require.NoError(s, l.cc.Send([]byte{b}))
		received++
		s.await("the byte", func() bool { return l.sc.Stats().BytesReceived >= received })
	}
	l.server.expect("hello", "x", "end")
}

func wireFragments(s *suite) {
	var stream []byte
	const packets = 300
	for n := range packets {
		stream = append(stream, frame(numbered(nil, 0, n, mixedPackets(n)))...)
	}
	for _, onPacket := range []bool{true, false} {
		for _, step := range []int{1, 2, 3, 7, 1000, 4096, 60000} {
			if step < 4 && s.amount(10) < 10 {
				continue
			}
			k := newChecker(1)
			cfg, start := receiving(driver.Config{}, onPacket, k.take)
			l := s.pair(driver.Config{Framing: raw{}}, cfg)
			start(l.server)
			ctx := s.context()
			for b := stream; len(b) > 0; {
				n := min(step, len(b))
				require.NoError(s, l.cc.SendContext(ctx, b[:n]))
				b = b[n:]
			}
			k.complete(s, "fragments", []int{packets})
			require.NoError(s, l.client.Close())
			require.NoError(s, l.server.Close())
		}
	}
}

var impossible = map[string]string{
	"zero length":              "\x00\x00",
	"over MaxPacketSize":       "\x03\xe9",
	"over MaxPacketSize, more": "\xff\xff" + string(make([]byte, 5000)),
}

func wireProtocolError(s *suite) {
	for name, bad := range impossible {
		server := s.server(driver.Config{MaxPacketSize: 1000, OnPacket: func(driver.Conn, []byte) { s.Error("a packet of", name) }})
		client := s.client(driver.Config{Framing: raw{}})
		bystander := s.client(driver.Config{})
		_, bs := s.connect(bystander, server)
		cc, sc := s.connect(client, server)
		require.NoError(s, cc.Send([]byte(bad)))
		require.ErrorIs(s, server.awaitEnd(sc), driver.ErrProtocol, name)
		client.awaitEnd(cc)
		require.NoError(s, bs.Send([]byte("undisturbed")))
		bystander.expect("undisturbed")
	}
}

func wireBeforeError(s *suite) {
	for name, bad := range impossible {
		for _, onPacket := range []bool{true, false} {
			k := newChecker(1)
			cfg, start := receiving(driver.Config{MaxPacketSize: 1000}, onPacket, k.take)
			l := s.pair(driver.Config{Framing: raw{}}, cfg)
			var stream []byte
			for n := range 10 {
				stream = append(stream, frame(numbered(nil, 0, n, 10))...)
			}
			require.NoError(s, l.cc.Send(append(stream, bad...)))
			require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrProtocol, name)
			start(l.server)
			k.complete(s, name, []int{10})
		}
	}
}

func wireLargest(s *suite) {
	l := s.pair(driver.Config{Framing: raw{}, MaxPacketSize: 1000}, driver.Config{MaxPacketSize: 1000})
	largest := make([]byte, 1000)
	f := frame(largest)
	require.NoError(s, l.cc.Send(f[:1000]))
	require.NoError(s, l.cc.Send(f[1000:]))
	l.server.expect(string(largest))
}
