//go:build linux

package chaos_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/bench/chaos/kind"
	"gridstream/bench/chaos/oracle"
	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// patience bounds every wait; nothing passes by waiting for it.
const patience = 30 * time.Second

// local is where everything is that is not behind a wire.
const local = "127.0.0.1"

// arena is a server, clients that are behind a fault, and innocent ones that are not, and at its end the oracle: every packet that arrived is
// the next of its connection's, every connection that was established ended once, nothing is left, and nobody innocent
// noticed.
type arena struct {
	*testing.T
	clientKind kind.Kind
	server     *side
	ctx        context.Context
	keys       atomic.Uint64

	// Guarded by mu.
	mu    sync.Mutex
	links map[uint64]*link // by key
	sides []*side

	innocents sync.WaitGroup
	calm      chan struct{} // closed when innocents shall end
	spoiled   []*link       // those of innocents
}

// side is a driver and its events.
type side struct {
	driver.Driver
	ledger oracle.Ledger
	latest atomic.Pointer[driver.Conn] // established last
}

// link is a connection and what must have arrived of it.
type link struct {
	key      uint64
	up, down *oracle.Flow
	client   *side
	cc       driver.Conn

	// Guarded by arena.mu.
	sc driver.Conn // nil: the server has had no packet yet
}

// leaksNothing looks, when the test is over, that it left no goroutine and no descriptor.
func leaksNothing(t *testing.T) {
	t.Helper()
	goroutines, before := runtime.NumGoroutine(), descriptors()
	t.Cleanup(func() { // the last one, where it is registered first
		if t.Failed() {
			return // what is left then says nothing
		}
		if !eventually(func() bool { return runtime.NumGoroutine() <= goroutines }) {
			t.Errorf("%d goroutines before, %d after:\n%s", goroutines, runtime.NumGoroutine(), stacks())
		}
		if !eventually(func() bool { return len(descriptors()) <= len(before) }) {
			t.Errorf("descriptors before: %v; after: %v", before, descriptors())
		}
	})
}

// newArena is openArena that leaves nothing.
func newArena(t *testing.T, server, client kind.Kind, address string, cfg driver.Config) *arena {
	t.Helper()
	leaksNothing(t)
	return openArena(t, server, client, address, cfg)
}

// openArena starts a server. What cfg says counts for both sides.
func openArena(t *testing.T, server, client kind.Kind, address string, cfg driver.Config) *arena {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	a := &arena{T: t, clientKind: client, ctx: ctx, links: make(map[uint64]*link), calm: make(chan struct{})}
	t.Cleanup(cancel)
	t.Cleanup(a.close)
	serverCfg := cfg
	serverCfg.OnPacket = a.toServer
	a.server = a.newSide(server, serverCfg, address)
	require.NoError(t, a.server.StartListen(0))
	return a
}

func (a *arena) newSide(k kind.Kind, cfg driver.Config, address string) *side {
	a.Helper()
	desc, err := drivertest.Development()
	require.NoError(a, err)
	cfg.EventLoops = 2
	d, err := k.New(cfg, desc)
	require.NoError(a, err)
	s := &side{Driver: d}
	d.Events().Subscribe(&s.ledger)
	d.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) { s.latest.Store(&ev.Conn) }})
	a.sides = append(a.sides, s)
	require.NoError(a, d.Initialize(driver.Bind{Address: address}))
	return s
}

// close is the end of it all.
func (a *arena) close() {
	if a.Failed() {
		for _, l := range a.all() {
			a.Logf("link %d: up %d of %d, down %d of %d; client's end %v, server's %v", l.key, l.up.Received(), l.up.Sent(),
				l.down.Received(), l.down.Sent(), l.client.end(l.cc), a.server.end(a.serverConn(l)))
		}
	}
	for _, s := range slices.Backward(a.sides) {
		if err := s.Close(); err != nil {
			a.Errorf("Close: %v", err)
		}
		if err := s.ledger.Closed(); err != nil {
			a.Errorf("events: %v", err)
		}
		if st := s.Stats(); st.Connections != 0 || st.Disconnected != st.Accepted+st.Dialled {
			a.Errorf("after Close: %+v", st)
		}
		if up, down := s.ledger.Counts(); uint64(up) != s.Stats().Accepted+s.Stats().Dialled || uint64(down) != s.Stats().Disconnected {
			a.Errorf("%d Established and %d Disconnected were told: %+v", up, down, s.Stats())
		}
	}
	for _, l := range a.all() {
		for what, f := range map[string]*oracle.Flow{"up": l.up, "down": l.down} {
			if err := f.Prefix(); err != nil {
				a.Errorf("link %d, %s: %v", l.key, what, err)
			}
		}
	}
}

func (a *arena) all() (all []*link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		all = append(all, l)
	}
	return all
}

// end is why c ended; nil while it has not.
func (s *side) end(c driver.Conn) error {
	if c == nil {
		return nil
	}
	return s.ledger.End(c)
}

func (s *side) addr(host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), s.Port())
}

// toServer is the server's OnPacket.
func (a *arena) toServer(c driver.Conn, packet []byte) {
	l, _ := c.Value().(*link)
	if l == nil {
		key, _ := oracle.Key(packet)
		a.mu.Lock()
		if l = a.links[key]; l != nil {
			l.sc = c
		}
		a.mu.Unlock()
		if l == nil {
			a.Errorf("a packet of no connection: %d bytes", len(packet))
			return
		}
		c.SetValue(l)
	}
	l.up.Take(packet)
}

func (a *arena) serverConn(l *link) driver.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return l.sc
}

// client makes a driver that connects from address.
func (a *arena) client(cfg driver.Config, address string) *side {
	a.Helper()
	cfg.OnPacket = func(c driver.Conn, packet []byte) {
		if l, _ := c.Value().(*link); l != nil {
			l.down.Take(packet)
		} else {
			a.Errorf("the server sent first")
		}
	}
	return a.newSide(a.clientKind, cfg, address)
}

// connect connects client to addr, behind which is the server; nil where that fails.
func (a *arena) connect(client *side, addr netip.AddrPort) *link {
	a.Helper()
	failed := client.ledger.Failed()
	client.latest.Store(nil)
	require.NoError(a, client.ConnectTo(addr))
	// It may be over already when it is looked at.
	a.await("a connection or none", func() bool { return client.latest.Load() != nil || client.ledger.Failed() > failed })
	if client.latest.Load() == nil {
		return nil
	}
	cc := *client.latest.Load()
	key := a.keys.Add(1)
	l := &link{key: key, up: oracle.NewFlow(key, oracle.Up), down: oracle.NewFlow(key, oracle.Down), client: client, cc: cc}
	cc.SetValue(l)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links[key] = l
	return l
}

// introduce has the server know the connection; false where it ended before that.
func (a *arena) introduce(l *link) bool {
	a.Helper()
	_ = l.up.Send(a.ctx, l.cc, l.up.Sent()+1)
	a.await("the first packet", func() bool { return a.serverConn(l) != nil || l.client.end(l.cc) != nil })
	return a.serverConn(l) != nil
}

// talk has both sides send count packets more, and waits for them to arrive. It reports false where the connection ends before that.
func (a *arena) talk(l *link, count int) bool {
	a.Helper()
	if a.serverConn(l) == nil && !a.introduce(l) {
		return false
	}
	upTo, downTo := l.up.Sent()+count, l.down.Sent()+count
	var sending sync.WaitGroup
	sending.Go(func() { _ = l.up.Send(a.ctx, l.cc, upTo) })
	sending.Go(func() { _ = l.down.Send(a.ctx, a.serverConn(l), downTo) })
	sending.Wait()
	arrived := func() bool { return l.up.Received() >= upTo && l.down.Received() >= downTo }
	a.await("the packets, or the end", func() bool { return arrived() || a.over(l) })
	return arrived()
}

// over reports that one side ended.
func (a *arena) over(l *link) bool {
	return l.client.end(l.cc) != nil || a.server.end(a.serverConn(l)) != nil
}

// parting is how many packets are queued, or on their way, when a connection closes: what arrives in the end says little where there was
// nothing left to send.
const parting = 200

// ends closes the connection at one side, and looks that the end was orderly and all arrived.
func (a *arena) ends(l *link, byServer bool) {
	a.Helper()
	mine, other, out := l.cc, a.serverConn(l), l.up
	if byServer {
		mine, other, out = other, mine, l.down
	}
	require.NoError(a, out.Send(a.ctx, mine, out.Sent()+parting))
	mine.Close(nil)
	a.awaitEnd(l)
	reasons := map[driver.Conn]error{l.cc: l.client.end(l.cc), a.serverConn(l): a.server.end(a.serverConn(l))}
	require.ErrorIs(a, reasons[mine], driver.ErrDisconnected)
	require.ErrorIs(a, reasons[other], driver.ErrPeerClosed)
	require.NoError(a, l.up.Complete(), "up")
	require.NoError(a, l.down.Complete(), "down")
}

// awaitEnd waits for both sides' Disconnected.
func (a *arena) awaitEnd(l *link) {
	a.Helper()
	a.await("Disconnected of both sides", func() bool {
		sc := a.serverConn(l)
		return l.client.end(l.cc) != nil && (sc == nil || a.server.end(sc) != nil)
	})
}

// meanwhile has innocent clients talk to the server until it is told to stop, which looks that nothing happened to them.
func (a *arena) meanwhile(cfg driver.Config, host string) (stop func()) {
	a.Helper()
	const clients = 2
	for range clients {
		l := a.connect(a.client(cfg, host), a.server.addr(host))
		require.NotNil(a, l)
		a.spoiled = append(a.spoiled, l)
		require.True(a, a.talk(l, 1))
		a.innocents.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-a.calm:
					return
				case <-tick.C:
				}
				if err := l.up.Send(a.ctx, l.cc, l.up.Sent()+1); err != nil {
					a.Errorf("an innocent client: %v", err)
					return
				}
				if err := l.down.Send(a.ctx, a.serverConn(l), l.down.Sent()+1); err != nil {
					a.Errorf("to an innocent client: %v", err)
					return
				}
			}
		})
	}
	calm := sync.OnceFunc(func() { close(a.calm); a.innocents.Wait() })
	a.Cleanup(calm) // before the drivers are closed, also where the test fails
	return func() {
		a.Helper()
		calm()
		for i, l := range a.spoiled {
			require.True(a, a.talk(l, 1), "an innocent connection ended: %v", l.client.end(l.cc))
			a.ends(l, i%2 == 0)
		}
	}
}

func (a *arena) await(what string, condition func() bool) {
	a.Helper()
	if !eventually(condition) {
		a.Fatalf("not within %v: %s\n%s", patience, what, stacks())
	}
}

func eventually(condition func() bool) bool {
	deadline := time.Now().Add(patience)
	for delay := 100 * time.Microsecond; !condition(); delay = min(2*delay, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(delay)
	}
	return true
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// descriptors are those that are open.
func descriptors() (all []string) {
	const dir = "/proc/self/fd"
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		to, _ := os.Readlink(dir + "/" + e.Name())
		all = append(all, fmt.Sprintf("%s -> %s", e.Name(), to))
	}
	return all
}

// matrix runs f for every kind of server and client.
func matrix(t *testing.T, f func(t *testing.T, server, client kind.Kind)) {
	for _, server := range kind.All {
		for _, client := range kind.All {
			if server.TLS == client.TLS {
				t.Run(fmt.Sprintf("server=%v/client=%v", server, client), func(t *testing.T) { f(t, server, client) })
			}
		}
	}
}
