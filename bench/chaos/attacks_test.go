//go:build linux

package chaos_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/bench/chaos/kind"
	"gridstream/bench/chaos/oracle"
	"gridstream/driver"
	"gridstream/driver/drivertest"
	"gridstream/tlsadapter"
)

const innocentPlayers = 200

// longestTrip is what innocent players bear, on a machine that others use too.
const longestTrip = 5 * time.Second

// windows are the time in which players are measured alone, and that under attack: with -short not long enough for figures.
func windows() (alone, underAttack time.Duration) {
	if testing.Short() {
		return 300 * time.Millisecond, 1200 * time.Millisecond
	}
	return 1500 * time.Millisecond, 2500 * time.Millisecond
}

// attacked is an attack on a server, and how the server shows that it was one.
type attacked struct {
	name    string // of attacks
	variant string
	on      func(kind.Kind) bool // the servers that it is for; nil: all
	count   int                  // attackers at the same time
	cfg     func(*driver.Config)

	// Why each of the attackers' connections ends; nil: none ends, and held of them are established.
	reason func(error) bool
	held   int
	// Each counts every attacker at least once, and ends as often as they are seen.
	counters []func(driver.Stats) uint64
}

func plain(k kind.Kind) bool  { return !k.TLS }
func secure(k kind.Kind) bool { return k.TLS }

// is is the reason err.
func is(err error) func(error) bool { return func(reason error) bool { return errors.Is(reason, err) } }

// says is a reason of TLS's, which is no exported error.
func says(text string) func(error) bool {
	return func(reason error) bool { return strings.Contains(reason.Error(), text) }
}

func counters(c ...func(driver.Stats) uint64) []func(driver.Stats) uint64 { return c }

func handshakesFailed(s driver.Stats) uint64 { return s.HandshakesFailed }
func sendsRejected(s driver.Stats) uint64    { return s.SendsRejected }
func acceptsRefused(s driver.Stats) uint64   { return s.AcceptsRefused }
func rateLimited(s driver.Stats) uint64      { return s.Ends.RateLimited }
func stallTimeout(s driver.Stats) uint64     { return s.Ends.StallTimeout }
func slowConsumer(s driver.Stats) uint64     { return s.Ends.SlowConsumer }
func loginTimeout(s driver.Stats) uint64     { return s.Ends.LoginTimeout }
func protocol(s driver.Stats) uint64         { return s.Ends.Protocol }
func failed(s driver.Stats) uint64           { return s.Ends.Failed }

// login is for attacks that LoginTimeout ends. Elsewhere it is not set: attackers can be slow because the machine is.
func login(c *driver.Config) { c.LoginTimeout = time.Second }

const perIP = innocentPlayers + 20

var attackTable = []attacked{
	{name: "PacketFlood", count: 10, cfg: func(c *driver.Config) { c.PacketsPerSecond = 200 },
		reason: is(driver.ErrRateLimited), counters: counters(rateLimited)},
	{name: "ByteFlood", count: 10, cfg: func(c *driver.Config) { c.BytesPerSecond = 256 << 10 },
		reason: is(driver.ErrRateLimited), counters: counters(rateLimited)},
	{name: "SlowReaders", variant: "RejectSend", count: 50,
		reason: is(driver.ErrStallTimeout), counters: counters(stallTimeout, sendsRejected)},
	{name: "SlowReaders", variant: "DisconnectSlow", count: 50, cfg: func(c *driver.Config) { c.SlowConsumer = driver.DisconnectSlow },
		reason: is(driver.ErrSlowConsumer), counters: counters(slowConsumer, sendsRejected)},
	{name: "HalfOpenHandshakes", on: secure, count: 200, counters: counters(handshakesFailed)},
	{name: "HalfOpenHandshakes", on: plain, count: 200, cfg: login, reason: is(driver.ErrLoginTimeout), counters: counters(loginTimeout)},
	{name: "SilentLogins", count: 100, cfg: login, reason: is(driver.ErrLoginTimeout), counters: counters(loginTimeout)},
	{name: "SingleBytes", on: secure, count: 100, counters: counters(handshakesFailed)},
	{name: "SingleBytes", on: plain, count: 100, cfg: login, reason: is(driver.ErrLoginTimeout), counters: counters(loginTimeout)},
	{name: "Garbage", on: secure, count: 10, counters: counters(handshakesFailed)},
	{name: "Garbage", on: plain, count: 10, reason: is(driver.ErrProtocol), counters: counters(protocol)},
	{name: "GarbageInSessions", on: secure, count: 10, reason: says("tls: "), counters: counters(failed)},
	{name: "WrongLengths", count: 10, reason: is(driver.ErrProtocol), counters: counters(protocol)},
	{name: "ConnectAndReset", on: secure, count: 4, counters: counters(handshakesFailed)},
	{name: "ConnectAndReset", on: plain, count: 4, reason: is(syscall.ECONNRESET), counters: counters(failed)},
	{name: "OneAddress", count: 300, cfg: func(c *driver.Config) { c.MaxConnectionsPerIP = perIP },
		held: perIP, counters: counters(acceptsRefused)},
	{name: "ClientHellosOf16MB", on: secure, count: 10, counters: counters(handshakesFailed)},
	{name: "ClientHellosOf56KB", on: secure, count: 10, reason: is(tlsadapter.ErrTruncated), counters: counters(failed)},
	{name: "KeyUpdates", on: func(k kind.Kind) bool { return k.TLS && !k.Stdnet }, count: 10,
		reason: is(tlsadapter.ErrUseless), counters: counters(failed)},
	{name: "KeyUpdates", on: func(k kind.Kind) bool { return k.TLS && k.Stdnet }, count: 10,
		cfg:    func(c *driver.Config) { c.BytesPerSecond = 64 << 10 },
		reason: is(driver.ErrRateLimited), counters: counters(rateLimited)},
	{name: "Renegotiation", on: secure, count: 10, reason: says("unexpected handshake message"), counters: counters(failed)},
}

// seen are the attackers' connections, by the server's events.
type seen struct {
	reason func(error) bool

	// Guarded by mu.
	mu       sync.Mutex
	open     map[uint64]bool // by Conn.ID
	most     int             // at the same time
	ended    map[string]int  // by reason
	expected int             // of those, with the reason that is expected
	total    int             // of those
}

func (s *seen) established(ev driver.Event) {
	if ev.Address.Addr().String() != attackersAddress {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[ev.Conn.ID()] = true
	s.most = max(s.most, len(s.open))
}

func (s *seen) disconnected(ev driver.Event) {
	if ev.Address.Addr().String() != attackersAddress {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, ev.Conn.ID())
	s.total++
	s.ended[nameOf(ev.Reason)]++
	if s.reason != nil && s.reason(ev.Reason) {
		s.expected++
	}
}

// ends waits until those that are open now have ended, and as many as there are attackers.
func (s *seen) ends(attackers int) bool {
	s.mu.Lock()
	before := maps.Clone(s.open)
	s.mu.Unlock()
	return eventually(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.DeleteFunc(before, func(id uint64, _ bool) bool { return !s.open[id] })
		return len(before) == 0 && s.total >= attackers
	})
}

// String is for failures and the log.
func (s *seen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d attackers at the same time, %d at last; ended with %v", s.most, len(s.open), s.ended)
}

// shows looks that the attack shows, while it goes on.
func (a *attacked) shows(t *testing.T, server driver.Driver, s *seen) {
	t.Helper()
	expected := 0
	if a.reason != nil {
		require.True(t, s.ends(a.count), "attackers stay: %v; %+v", s, server.Stats())
		s.mu.Lock()
		total := s.total
		expected = s.expected
		s.mu.Unlock()
		require.GreaterOrEqual(t, expected, total-total/20, "attackers end otherwise: %v; %+v", s, server.Stats())
	} else {
		held := func() (most, ended int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.most, s.total
		}
		require.True(t, eventually(func() bool { most, _ := held(); return most >= a.held }), "%v; %+v", s, server.Stats())
		most, ended := held()
		require.Equal(t, a.held, most, "attackers at the same time: %v", s)
		require.Zero(t, ended, "%v", s)
	}
	for i, counter := range a.counters {
		require.True(t, eventually(func() bool { return counter(server.Stats()) >= uint64(max(a.count, expected)) }),
			"counter %d does not show it: %v; %+v", i, s, server.Stats())
	}
}

// TestAttacks: 200 players in a process of their own play on while others attack: nobody innocent is lost, all of their packets are
// answered, the attack shows, and afterwards nothing is left of it. How long their round trips take before and during it is
// printed: it depends on the machine.
func TestAttacks(t *testing.T) {
	var figures []string
	for _, server := range kind.All {
		t.Run(fmt.Sprintf("server=%v", server), func(t *testing.T) {
			for _, a := range attackTable {
				if a.on != nil && !a.on(server) {
					continue
				}
				name := a.name
				if a.variant != "" {
					name += "/" + a.variant
				}
				t.Run(name, func(t *testing.T) {
					figures = append(figures, fmt.Sprintf("| %v | %s | %s |", server, name, a.run(t, server)))
				})
			}
		})
	}
	t.Logf("| server | attack | attempts | innocent lost | p99 before | p99 during | ratio | max during |\n%s", strings.Join(figures, "\n"))
}

// run returns its line of the figures.
func (a *attacked) run(t *testing.T, k kind.Kind) string {
	leaksNothing(t)
	cfg := driver.Config{
		MaxPacketSize:    4096,
		HandshakeTimeout: time.Second,
		StallTimeout:     time.Second,
		LingerTimeout:    500 * time.Millisecond,
		OnPacket:         serve,
	}
	if a.cfg != nil {
		a.cfg(&cfg)
	}
	desc, err := drivertest.Development()
	require.NoError(t, err)
	server, err := k.New(cfg, desc)
	require.NoError(t, err)
	var ledger oracle.Ledger
	server.Events().Subscribe(&ledger)
	attacking := &seen{reason: a.reason, open: make(map[uint64]bool), ended: make(map[string]int)}
	server.Events().Subscribe(driver.SubscriberFuncs{Established: attacking.established, Disconnected: attacking.disconnected})
	require.NoError(t, server.Initialize(driver.Bind{Address: local, SendBufferSize: 64 << 10}))
	defer func() {
		require.NoError(t, server.Close())
		require.NoError(t, ledger.Closed())
		up, down := ledger.Counts()
		require.EqualValues(t, server.Stats().Accepted, up)
		require.EqualValues(t, server.Stats().Disconnected, down)
	}()
	require.NoError(t, server.StartListen(0))
	addr := netip.AddrPortFrom(netip.MustParseAddr(local), server.Port()).String()

	players := startRole(t, "players", playersOrder{Server: addr, TLS: k.TLS, Players: innocentPlayers})
	var greeting string
	players.hear(&greeting)
	var before, begins, during, after playersReport
	players.tell("measure", &begins) // what there is from connecting does not count
	alone, underAttack := windows()
	window := time.NewTimer(alone)
	<-window.C
	players.tell("measure", &before)

	attackers := startRole(t, "attackers", attackersOrder{Server: addr, TLS: k.TLS, Attack: a.name, Count: a.count})
	attackers.hear(&greeting)
	players.tell("measure", &begins)
	begun := time.Now()
	window.Reset(underAttack)
	<-window.C
	players.tell("measure", &during)
	measured := time.Since(begun)
	a.shows(t, server, attacking)
	t.Logf("%v", attacking)
	var attack attackersReport
	attackers.tell("stop", &attack)
	attackers.end()

	require.True(t, eventually(func() bool { return server.NumberOfConnections() == innocentPlayers }), "%d connections are left, %d are innocent",
		server.NumberOfConnections(), innocentPlayers)
	players.tell("stop", &after)
	players.end()
	t.Logf("%d attempts, %d did not connect; %+v", attack.Attempts, attack.NotConnected, server.Stats())
	t.Logf("players before: %+v, during: %+v, after: %+v", before, during, after)
	require.NotZero(t, before.Answered)
	for _, r := range []playersReport{begins, during, after} {
		require.Zero(t, r.Lost, "innocent players were lost: %s", r.Err)
		require.Less(t, r.Max, longestTrip, "innocent players waited")
	}
	sent := int(innocentPlayers * measured / playerTick) // if nothing held them up
	require.GreaterOrEqual(t, during.Answered, sent/4, "innocent players were hardly answered")
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("%d | %d of %d | %v | %v | %.1f | %v", attack.Attempts, during.Lost, innocentPlayers,
		round(before.P99), round(during.P99), float64(during.P99)/float64(before.P99), round(during.Max))
}

// nameOf is a reason without what differs from one connection to the next.
func nameOf(reason error) string {
	for _, err := range []error{driver.ErrProtocol, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(reason, err) {
			return err.Error()
		}
	}
	var e *driver.Error
	if errors.As(reason, &e) {
		return e.Err.Error()
	}
	return reason.Error()
}

// serve is the server's OnPacket.
func serve(c driver.Conn, packet []byte) {
	if len(packet) != 16 {
		return
	}
	switch packet[4] {
	case playerPacket:
		c.Authenticated()
		_ = c.Send(packet)
	case greedyPacket:
		c.Authenticated()
		var answer [1000]byte
		for range 100 {
			if c.Send(answer[:]) != nil {
				return
			}
		}
	case 'F', 'H':
		c.Authenticated()
	}
}
