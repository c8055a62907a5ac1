//go:build linux

package chaos_test

import (
	"errors"
	"fmt"
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
)

const innocentPlayers = 200

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
	count   int // attackers at the same time
	cfg     func(*driver.Config)
	tlsOnly bool

	// One of these is how attackers ended; nil: it does not matter.
	reasons []error
	// The counter that shows it; nil: none but Disconnected.
	counter func(driver.Stats) uint64
	// plainReasons and plainCounter are for servers without TLS, where that is something else.
	plainReasons []error
	plainCounter func(driver.Stats) uint64
}

// receiveError stands for an error of TLS's, which is no exported one.
var receiveError = driver.ErrReceive

func handshakesFailed(s driver.Stats) uint64 { return s.HandshakesFailed }
func disconnected(s driver.Stats) uint64     { return s.Disconnected }

var attackTable = []attacked{
	{name: "PacketFlood", count: 10, cfg: func(c *driver.Config) { c.PacketsPerSecond = 200 },
		reasons: []error{driver.ErrRateLimited}},
	{name: "ByteFlood", count: 10, cfg: func(c *driver.Config) { c.BytesPerSecond = 256 << 10 },
		reasons: []error{driver.ErrRateLimited}},
	{name: "SlowReaders", variant: "RejectSend", count: 50,
		reasons: []error{driver.ErrStallTimeout},
		counter: func(s driver.Stats) uint64 { return s.SendsRejected }},
	{name: "SlowReaders", variant: "DisconnectSlow", count: 50, cfg: func(c *driver.Config) { c.SlowConsumer = driver.DisconnectSlow },
		reasons: []error{driver.ErrSlowConsumer},
		counter: func(s driver.Stats) uint64 { return s.SendsRejected }},
	{name: "HalfOpenHandshakes", count: 200,
		counter:      handshakesFailed,
		plainReasons: []error{driver.ErrLoginTimeout}, plainCounter: disconnected},
	{name: "SilentLogins", count: 100,
		reasons: []error{driver.ErrLoginTimeout}},
	{name: "SingleBytes", count: 100,
		counter:      handshakesFailed,
		plainReasons: []error{driver.ErrLoginTimeout}, plainCounter: disconnected},
	{name: "Garbage", count: 10,
		counter:      handshakesFailed,
		plainReasons: []error{driver.ErrProtocol}, plainCounter: disconnected},
	{name: "ConnectAndReset", count: 4,
		counter: handshakesFailed, plainCounter: disconnected},
	{name: "OneAddress", count: 300, cfg: func(c *driver.Config) { c.MaxConnectionsPerIP = innocentPlayers + 20 },
		counter: func(s driver.Stats) uint64 { return s.AcceptsRefused }},
	{name: "HugeClientHellos", count: 10, tlsOnly: true,
		counter: handshakesFailed},
	{name: "KeyUpdates", count: 10, tlsOnly: true, cfg: func(c *driver.Config) { c.BytesPerSecond = 64 << 10 },
		reasons: []error{driver.ErrRateLimited, driver.ErrSlowConsumer, driver.ErrLoginTimeout}},
	{name: "Renegotiation", count: 10, tlsOnly: true,
		reasons: []error{receiveError}},
}

// TestAttacks: 200 players in a process of their own play on while others attack: nobody innocent is lost, all of their packets are
// answered, the attack shows, and afterwards nothing is left of it. How long their round trips take before and during it is
// printed: it depends on the machine.
func TestAttacks(t *testing.T) {
	var figures []string
	for _, server := range kind.All {
		t.Run(fmt.Sprintf("server=%v", server), func(t *testing.T) {
			for _, a := range attackTable {
				if a.tlsOnly && !server.TLS {
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
	t.Logf("| server | attack | attempts | innocent lost | p99 before | p99 during | ratio |\n%s", strings.Join(figures, "\n"))
}

// run returns its line of the figures.
func (a *attacked) run(t *testing.T, k kind.Kind) string {
	leaksNothing(t)
	reasons, counter := a.reasons, a.counter
	if !k.TLS && (a.plainReasons != nil || a.plainCounter != nil) {
		reasons, counter = a.plainReasons, a.plainCounter
	}
	if counter == nil {
		counter = disconnected
	}

	var mu sync.Mutex
	ended := make(map[string]int) // attackers, by reason
	matched := 0
	cfg := driver.Config{
		MaxPacketSize:    4096,
		LoginTimeout:     time.Second,
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
	server.Events().Subscribe(driver.SubscriberFuncs{Disconnected: func(ev driver.Event) {
		if ev.Address.Addr().String() != attackersAddress {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		ended[nameOf(ev.Reason)]++
		for _, r := range reasons {
			if errors.Is(ev.Reason, r) {
				matched++
			}
		}
	}})
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
	var before, during, after playersReport
	players.tell("measure", &before) // what there is from connecting does not count
	alone, underAttack := windows()
	window := time.NewTimer(alone)
	<-window.C
	players.tell("measure", &before)

	attackers := startRole(t, "attackers", attackersOrder{Server: addr, TLS: k.TLS, Attack: a.name, Count: a.count})
	window.Reset(underAttack)
	<-window.C
	shows := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return counter(server.Stats()) > 0 && (reasons == nil || matched > 0)
	}
	if !eventually(shows) {
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("the attack does not show: ended %v; %+v", ended, server.Stats())
	}
	players.tell("measure", &during)
	var attack attackersReport
	attackers.tell("stop", &attack)
	attackers.end()

	require.Zero(t, during.Lost, "innocent players were lost: %s", during.Err)
	require.True(t, eventually(func() bool { return server.NumberOfConnections() == innocentPlayers }), "%d connections are left, %d are innocent",
		server.NumberOfConnections(), innocentPlayers)
	players.tell("stop", &after)
	players.end()
	require.Zero(t, after.Lost, "innocent players were lost: %s", after.Err)
	require.NotZero(t, before.Answered)
	require.NotZero(t, during.Answered)
	mu.Lock()
	t.Logf("%d attempts; attackers ended with %v; %+v", attack.Attempts, ended, server.Stats())
	mu.Unlock()
	t.Logf("players before: %+v, during: %+v", before, during)
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("%d | %d of %d | %v | %v | %.1f", attack.Attempts, during.Lost, innocentPlayers,
		round(before.P99), round(during.P99), float64(during.P99)/float64(before.P99))
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
