package drivertest

import (
	"bufio"
	"bytes"
	"io"
	"net"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func adoptProperties() []property {
	return []property{
		{"AcceptedConnection", adoptAccepted},
		{"FailsAndCloses", adoptFails},
		{"RoundTripsLeakNothing", roundTrips},
		{"StartListenOn", startListenOn},
		{"AtMaxConnections", adoptAtMax},
		{"UnreadBytesBecomePackets", adoptUnread},
		{"WithUnread", adoptWithUnread},
		{"WithUnreadTwice", adoptWithUnreadTwice},
		{"ListenerWithUnread", listenerWithUnread},
	}
}

// listener is somebody else's listener on the loopback.
func (s *suite) listener() net.Listener {
	s.Helper()
	ln, err := net.Listen("tcp4", host+":0")
	require.NoError(s, err)
	s.Cleanup(func() { ln.Close() })
	return ln
}

// adopt has server adopt a connection of client's that something else accepted.
func (s *suite) adopt(client, server *node, ln net.Listener) *link {
	s.Helper()
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	require.NoError(s, client.ConnectTo(addr))
	var nc net.Conn
	s.must("Accept", func() {
		var err error
		if nc, err = ln.Accept(); err != nil {
			s.Errorf("Accept: %v", err)
		}
	})
	var adopted driver.Conn
	s.must("Adopt", func() {
		var err error
		if adopted, err = server.Adopt(nc); err != nil {
			s.Errorf("Adopt: %v", err)
		}
	})
	if s.Failed() {
		s.FailNow()
	}
	l := &link{client: client, server: server}
	l.cc, l.sc = s.awaitConnected(client, server, addr)
	require.Equal(s, adopted.ID(), l.sc.ID())
	return l
}

func adoptAccepted(s *suite) {
	client, server := s.client(driver.Config{}), s.bound(driver.Config{}, driver.Bind{Address: host})
	l := s.adopt(client, server, s.listener())
	require.True(s, l.sc.Inbound())
	require.False(s, server.IsListening())
	require.EqualValues(s, 1, server.Stats().Accepted)
	require.Equal(s, l.cc.LocalAddr(), l.sc.RemoteAddr())
	require.Equal(s, l.cc.RemoteAddr(), l.sc.LocalAddr())
	l.talks("adopted")
	require.NoError(s, server.DisconnectFrom(l.sc.RemoteAddr()))
	require.ErrorIs(s, client.awaitEnd(l.cc), driver.ErrPeerClosed)
}

func adoptFails(s *suite) {
	server := s.bare(driver.Config{})
	closed := func(nc net.Conn, cause error) {
		s.Helper()
		c, err := server.Adopt(nc)
		require.Error(s, err)
		require.Nil(s, c)
		require.Equal(s, driver.ErrSocketAccept, driver.CodeOf(err))
		if cause != nil {
			require.ErrorIs(s, err, cause)
		}
		_, err = nc.Write([]byte("x"))
		require.Error(s, err, "Adopt owns the connection also when it fails")
	}
	raw := func() net.Conn {
		ln := s.listener()
		nc, err := net.Dial("tcp4", ln.Addr().String())
		require.NoError(s, err)
		s.Cleanup(func() { nc.Close() })
		return nc
	}
	closed(raw(), driver.ErrNotInitialized)
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	one, other := net.Pipe()
	defer other.Close()
	closed(one, nil)
	nc := raw()
	require.NoError(s, nc.Close())
	closed(nc, nil)
	require.NoError(s, server.Close())
	closed(raw(), net.ErrClosed)
}

// roundTrips: issue 4's 200 round trips. Where a plain net.Conn comes out of Hijack it is adopted again; a TLS session cannot be.
func roundTrips(s *suite) {
	const trips = 200
	client, server := s.client(driver.Config{}), s.client(driver.Config{})
	ln := s.listener()
	descriptors := 0
	l := s.adopt(client, server, ln)
	for i := range s.amount(trips) {
		l.talks("before")
		// In flight, in both directions.
		for n := range 20 {
			require.NoError(s, l.cc.Send(numbered(nil, 0, n, 100)))
			require.NoError(s, l.sc.Send(numbered(nil, 1, n, 100)))
		}
		a, b := s.hijack(l.cc), s.hijack(l.sc)
		require.ErrorIs(s, client.awaitEnd(l.cc), driver.ErrHijacked)
		require.ErrorIs(s, server.awaitEnd(l.sc), driver.ErrHijacked)
		if s.secure {
			s.expectFrames(b, 0, 0, 20)
			s.expectFrames(a, 1, 0, 20)
			require.NoError(s, a.Close())
			require.NoError(s, b.Close())
			l = s.adopt(client, server, ln)
		} else {
			s.expectFrames(b, 0, 0, 7)
			remote := a.RemoteAddr().(*net.TCPAddr).AddrPort()
			_, err := client.Adopt(a)
			require.NoError(s, err)
			_, err = server.Adopt(b)
			require.NoError(s, err)
			l.cc, l.sc = s.awaitConnected(client, server, remote)
			for n := range 13 {
				server.expect(string(numbered(nil, 0, 7+n, 100)))
			}
			for n := range 20 {
				client.expect(string(numbered(nil, 1, n, 100)))
			}
		}
		if n := countDescriptors(); i == 0 {
			descriptors = n
		} else if n > descriptors {
			s.await("descriptors back", func() bool { return countDescriptors() <= descriptors })
		}
	}
}

func startListenOn(s *suite) {
	server := s.bare(driver.Config{})
	ln := s.listener()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	require.NoError(s, server.Initialize(driver.Bind{Address: host}))
	own := server.Port()
	require.NoError(s, server.StartListenOn(ln))
	require.True(s, server.IsListening())
	require.Equal(s, port, server.Port())
	err := server.StartListenOn(s.listener())
	require.ErrorIs(s, err, driver.ErrListening)
	require.ErrorIs(s, server.StartListen(0), driver.ErrListening)
	client := s.client(driver.Config{})
	cc, sc := s.connect(client, server)
	l := &link{client, server, cc, sc}
	l.talks("on the caller's listener")
	require.NoError(s, server.StopListen())
	_, err = ln.Accept()
	require.ErrorIs(s, err, net.ErrClosed, "the driver owns the listener")
	l.talks("after StopListen")
	require.NoError(s, server.StartListen(0))
	require.Equal(s, own, server.Port())
	s.connect(client, server)

	err = server.StartListenOn(nil)
	require.Equal(s, driver.ErrSocketListen, driver.CodeOf(err))
}

func adoptAtMax(s *suite) {
	server := s.client(driver.Config{MaxConnections: 1})
	client := s.client(driver.Config{})
	ln := s.listener()
	l := s.adopt(client, server, ln)
	nc, err := net.Dial("tcp4", ln.Addr().String())
	require.NoError(s, err)
	_, err = server.Adopt(nc)
	require.ErrorIs(s, err, driver.ErrTooManyConnections)
	l.talks("undisturbed")
}

// adoptUnread: what came before Adopt, and what Hijack left unread, is what the new driver receives first.
func adoptUnread(s *suite) {
	if s.secure {
		s.Skip("a TLS session cannot be adopted")
	}
	l := s.pair(driver.Config{}, driver.Config{})
	for n := range 10 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, n, 10)))
	}
	s.await("the packets", func() bool { return l.sc.Stats().PacketsReceived == 10 })
	nc := s.hijack(l.sc)
	for n := range 10 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, 10+n, 10)))
	}
	k := newChecker(1)
	next := s.client(driver.Config{InboundBufferSize: 20, OnPacket: func(_ driver.Conn, p []byte) { k.take(p) }})
	_, err := next.Adopt(nc)
	require.NoError(s, err)
	k.complete(s, "adopted with unread bytes", []int{20})
}

// greeter is a client that sends numbered packets as soon as it is connected. With TLS the handshake comes before them.
func (s *suite) greeter(packets int) *node {
	s.Helper()
	client := s.node(s.newClient, driver.Config{})
	client.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) {
		for n := range packets {
			assert.NoError(s, ev.Conn.Send(numbered(nil, 0, n, 100)))
		}
	}})
	require.NoError(s, client.Initialize(driver.Bind{Address: host}))
	return client
}

// readAhead reads some of what the peer sends first into a buffer, as an http.Server does, and takes none of it.
func readAhead(nc net.Conn) (net.Conn, error) {
	br := bufio.NewReaderSize(nc, 150)
	if _, err := br.Peek(20); err != nil {
		return nil, err
	}
	return driver.WithUnread(nc, br), nil
}

// adoptWithUnread: what somebody's bufio.Reader holds is not lost, be it packets or the beginning of the handshake.
func adoptWithUnread(s *suite) {
	client, ln := s.greeter(20), s.listener()
	server := s.client(driver.Config{})
	require.NoError(s, client.ConnectTo(ln.Addr().(*net.TCPAddr).AddrPort()))
	s.must("Adopt", func() {
		nc, err := ln.Accept()
		if assert.NoError(s, err) {
			nc, err = readAhead(nc)
			assert.NoError(s, err)
			_, err = server.Adopt(nc)
			assert.NoError(s, err)
		}
	})
	for n := range 20 {
		server.expect(string(numbered(nil, 0, n, 100)))
	}
	require.Equal(s, 1, server.Broadcast([]byte("back"), nil))
	client.expect("back")
}

// adoptWithUnreadTwice: who reads on from what Hijack left unread, with a buffer, wraps it again.
func adoptWithUnreadTwice(s *suite) {
	if s.secure {
		s.Skip("a TLS session cannot be adopted")
	}
	l := s.pair(driver.Config{}, driver.Config{})
	for n := range 30 {
		require.NoError(s, l.cc.Send(numbered(nil, 0, n, 100)))
	}
	s.await("the packets", func() bool { return l.sc.Stats().PacketsReceived == 30 })
	nc := s.hijack(l.sc)
	var kept bytes.Buffer // an io.Writer that io.Copy gives what was unread
	for first := range 3 {
		br := bufio.NewReaderSize(nc, 250)
		s.expectFrames(br, 0, first, 1)
		nc = driver.WithUnread(nc, br)
	}
	require.NoError(s, l.cc.Send([]byte("the last")))
	l.cc.Close(nil)
	_, err := io.Copy(&kept, nc)
	require.NoError(s, err)
	s.expectFrames(&kept, 0, 3, 27)
	require.Equal(s, frame([]byte("the last")), kept.Bytes())
}

// peekingListener reads ahead, as one does that looks for a proxy's header.
type peekingListener struct{ net.Listener }

func (ln peekingListener) Accept() (net.Conn, error) {
	nc, err := ln.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return readAhead(nc)
}

func listenerWithUnread(s *suite) {
	server, client := s.client(driver.Config{}), s.greeter(20)
	require.NoError(s, server.StartListenOn(peekingListener{s.listener()}))
	require.NoError(s, client.ConnectTo(server.addr()))
	for n := range 20 {
		server.expect(string(numbered(nil, 0, n, 100)))
	}
}
