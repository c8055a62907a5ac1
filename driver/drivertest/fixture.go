package drivertest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// patience bounds every wait; nothing passes by waiting for it.
const patience = 30 * time.Second

// host is where drivers listen: an address of this process' own where the system has more than one on the loopback, so that a port that is
// free again is nobody else's meanwhile.
var host = func() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.1", 1+pid>>8%250, pid%256)
}()

type newDriver = func(driver.Config) (driver.Driver, error)

// suite is what one property runs with.
type suite struct {
	*testing.T
	newServer, newClient newDriver
	secure               bool // connections are TLS
	mixed                bool // of two implementations
}

// node is a driver of a property, and the events that it reported.
type node struct {
	driver.Driver
	s      *suite
	events *recorder
}

// runProperty runs p and looks that nothing is left of it.
func runProperty(t *testing.T, s suite, p property) {
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
	t.Cleanup(func() { // the last one, since it is registered first
		if t.Failed() {
			return // what is left then says nothing
		}
		if !eventually(func() bool { return runtime.NumGoroutine() <= goroutines }) {
			t.Errorf("%d goroutines before, %d after:\n%s", goroutines, runtime.NumGoroutine(), stacks())
		}
		if !eventually(func() bool { return countDescriptors() <= descriptors }) {
			t.Errorf("%d descriptors before, %d after: %v", descriptors, countDescriptors(), listDescriptors())
		}
	})
	s.T = t
	p.run(&s)
}

// warmUp starts what a process starts once, e.g. the runtime's poller, and finds out whether connections are TLS. It is no
// subtest, so that it also runs where only some are asked for.
func warmUp(t *testing.T, newServer, newClient newDriver) (secure bool) {
	server, err := newServer(driver.Config{})
	require.NoError(t, err)
	client, err := newClient(driver.Config{})
	require.NoError(t, err)
	for _, d := range []driver.Driver{server, client} {
		require.NoError(t, d.Initialize(driver.Bind{Address: host}))
	}
	require.NoError(t, server.StartListen(0))
	addr := netip.AddrPortFrom(netip.MustParseAddr(host), server.Port())
	require.NoError(t, client.ConnectTo(addr))
	if !eventually(func() bool { return client.IsConnectedTo(addr) }) {
		t.Fatal("two drivers do not connect to one another")
	}
	if c, ok := client.Conn(addr); ok {
		_, secure = c.TLS()
	}
	require.NoError(t, client.Close())
	require.NoError(t, server.Close())
	return secure
}

// bare makes a driver that is not initialized. It is closed, and its events are checked, when the property is done.
func (s *suite) bare(cfg driver.Config) *node {
	s.Helper()
	return s.node(s.newServer, cfg)
}

func (s *suite) node(newDriver newDriver, cfg driver.Config) *node {
	s.Helper()
	d, err := newDriver(cfg)
	require.NoError(s, err)
	n := &node{Driver: d, s: s, events: &recorder{}}
	d.Events().Subscribe(n.events)
	s.Cleanup(n.check)
	return n
}

// check closes n and looks at what it reported.
func (n *node) check() {
	n.s.Helper()
	if n.s.Failed() {
		n.s.Logf("events of the driver on port %d: %v; %+v", n.Port(), n.events, n.Stats())
		for c := range n.Conns() {
			n.s.Logf("its connection to %v: %+v", c.RemoteAddr(), c.Stats())
		}
	}
	if n.s.returns("Close", func() {
		if err := n.Close(); err != nil {
			n.s.Errorf("Close: %v", err)
		}
	}) {
		n.events.check(n.s)
		st := n.Stats()
		if st.Connections != 0 || n.NumberOfConnections() != 0 || st.Disconnected != st.Accepted+st.Dialled {
			n.s.Errorf("after Close: %d connections, Stats %+v", n.NumberOfConnections(), st)
		}
		if want := n.events.ends(); st.Ends != want {
			n.s.Errorf("after Close: Stats.Ends %+v, and %+v by the events", st.Ends, want)
		}
	}
}

// client is a driver on host.
func (s *suite) client(cfg driver.Config) *node {
	s.Helper()
	n := s.node(s.newClient, cfg)
	require.NoError(s, n.Initialize(driver.Bind{Address: host}))
	return n
}

func (s *suite) bound(cfg driver.Config, b driver.Bind) *node {
	s.Helper()
	n := s.bare(cfg)
	require.NoError(s, n.Initialize(b))
	return n
}

// server is a client that listens.
func (s *suite) server(cfg driver.Config) *node {
	s.Helper()
	return s.listening(cfg, driver.Bind{Address: host})
}

func (s *suite) listening(cfg driver.Config, b driver.Bind) *node {
	s.Helper()
	n := s.bound(cfg, b)
	require.NoError(s, n.StartListen(0))
	return n
}

// addr is where n listens, on the IPv4 loopback.
func (n *node) addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), n.Port())
}

// connect has client connect to server, and waits for both sides and their events.
func (s *suite) connect(client, server *node) (clientConn, serverConn driver.Conn) {
	s.Helper()
	return s.connectTo(client, server, server.addr())
}

func (s *suite) connectTo(client, server *node, addr netip.AddrPort) (clientConn, serverConn driver.Conn) {
	s.Helper()
	require.NoError(s, client.ConnectTo(addr))
	return s.awaitConnected(client, server, addr)
}

func (s *suite) awaitConnected(client, server *node, addr netip.AddrPort) (clientConn, serverConn driver.Conn) {
	s.Helper()
	s.await("a connection", func() (ok bool) {
		client.Update()
		server.Update()
		if clientConn, ok = client.Conn(addr); ok {
			serverConn, ok = server.Conn(clientConn.LocalAddr())
		}
		return ok && client.events.established(clientConn) && server.events.established(serverConn)
	})
	return clientConn, serverConn
}

// pair is a client connected to a server.
func (s *suite) pair(clientCfg, serverCfg driver.Config) *link {
	s.Helper()
	l := &link{client: s.client(clientCfg), server: s.server(serverCfg)}
	l.cc, l.sc = s.connect(l.client, l.server)
	return l
}

// link is a connection and the drivers at its ends.
type link struct {
	client, server *node
	cc, sc         driver.Conn
}

// await waits for a condition.
func (s *suite) await(what string, condition func() bool) {
	s.Helper()
	if !eventually(condition) {
		s.Fatalf("not within %v: %s\n%s", patience, what, stacks())
	}
}

func eventually(condition func() bool) bool {
	deadline := time.Now().Add(patience)
	for delay := 50 * time.Microsecond; !condition(); delay = min(2*delay, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(delay)
	}
	return true
}

// returns runs f, which must come back. The test goes on, failed, if it does not.
func (s *suite) returns(what string, f func()) bool {
	s.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return s.closes(what, done)
}

// closes waits for a channel to be closed.
func (s *suite) closes(what string, done <-chan struct{}) bool {
	s.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		s.Errorf("not within %v: %s\n%s", patience, what, stacks())
		return false
	}
}

// must is returns for what the rest of the property needs.
func (s *suite) must(what string, f func()) {
	s.Helper()
	if !s.returns(what, f) {
		s.FailNow()
	}
}

// background starts f, and returns what waits for it.
func (s *suite) background(what string, f func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return func() {
		s.Helper()
		if !s.closes(what, done) {
			s.FailNow()
		}
	}
}

// context ends with the property, or when patience does.
func (s *suite) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Cleanup(cancel)
	return ctx
}

// receive is the next packet; nil, and the property has failed, where none comes. Any goroutine.
func (n *node) receive(ctx context.Context) ([]byte, netip.AddrPort) {
	n.s.Helper()
	buf := make([]byte, n.MaxSendSize())
	for {
		size, from, err := n.Receive(buf)
		if err == nil && size == 0 {
			if err = n.WaitForData(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			n.s.Errorf("receiving: %v", err)
			return nil, from
		}
		return buf[:size], from
	}
}

// expect receives the packets, in this order.
func (n *node) expect(packets ...string) {
	n.s.Helper()
	ctx := n.s.context()
	for _, want := range packets {
		got, _ := n.receive(ctx)
		require.Equal(n.s, want, string(got))
	}
}

// talks exchanges a packet in each direction.
func (l *link) talks(text string) {
	s := l.client.s
	s.Helper()
	require.NoError(s, l.cc.Send([]byte("to server "+text)))
	l.server.expect("to server " + text)
	require.NoError(s, l.sc.Send([]byte("to client "+text)))
	l.client.expect("to client " + text)
}

// amount is n, or a tenth with -short and between two implementations, which each have had all of it.
func (s *suite) amount(n int) int {
	if testing.Short() || s.mixed {
		return max(n/10, 1)
	}
	return n
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

const descriptorDir = "/proc/self/fd"

// countDescriptors is 0 where the system does not tell.
func countDescriptors() int {
	entries, _ := os.ReadDir(descriptorDir)
	return len(entries)
}

func listDescriptors() (all []string) {
	entries, _ := os.ReadDir(descriptorDir)
	for _, e := range entries {
		to, _ := os.Readlink(descriptorDir + "/" + e.Name())
		all = append(all, fmt.Sprintf("%s -> %s", e.Name(), to))
	}
	return all
}
