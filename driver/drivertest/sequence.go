package drivertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func sequenceProperties() []property {
	return []property{{"Random", randomSequences}}
}

// randomSequences explores the states of a connection, in which each operation is legal at any time.
func randomSequences(s *suite) {
	for range s.amount(100) {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		ops := make([]byte, 5+random.IntN(40))
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		s.sequence(ops, fmt.Sprintf("seed %d", seed))
		if s.Failed() {
			return
		}
	}
}

// Sequence has two drivers do what ops say with connections between them, one operation a byte, and looks that they do as the model does. It is
// for fuzzing; Run has random ones.
func Sequence(t *testing.T, newDriver func(driver.Config) (driver.Driver, error), secure bool, ops []byte) {
	s := &suite{T: t, newServer: newDriver, newClient: newDriver, secure: secure}
	s.sequence(ops[:min(len(ops), 64)], "input")
}

// An operation is in the lower six bits of its byte. With settles the end that it brings is waited for, else it races with what
// comes next.
const (
	settles = 0x80
	opMask  = 0x3f
)

// The operations. Each is done at one of the two sides, which bit 0x40 tells: 0 is the server.
var sequenceOps = []struct {
	name string
	do   func(m *model, at, other *modelSide)
}{
	{"send", func(m *model, at, _ *modelSide) { m.send(at, 3) }},
	{"send much", func(m *model, at, _ *modelSide) { m.send(at, 200) }},
	{"PauseReading", func(_ *model, at, _ *modelSide) { at.pause(true) }},
	{"ResumeReading", func(_ *model, at, _ *modelSide) { at.pause(false) }},
	{"Authenticated", func(m *model, at, _ *modelSide) { m.authenticated = true; at.conn.Authenticated() }},
	{"Close", func(m *model, at, other *modelSide) {
		m.close(at, other, driver.ErrDisconnected, func() { at.conn.Close(nil) })
	}},
	{"Close with a reason", func(m *model, at, other *modelSide) {
		m.close(at, other, errKicked, func() { at.conn.Close(errKicked) })
	}},
	{"DisconnectFrom", func(m *model, at, other *modelSide) {
		m.close(at, other, driver.ErrDisconnected, func() { _ = at.node.DisconnectFrom(at.conn.RemoteAddr()) })
	}},
	{"Hijack and FIN", func(m *model, at, other *modelSide) { m.hijack(at, other, false) }},
	{"Hijack and RST", func(m *model, at, other *modelSide) { m.hijack(at, other, true) }},
	{"Hijack and Adopt", (*model).adopt},
	{"Shutdown", func(m *model, at, other *modelSide) {
		other.pause(false) // else it takes the linger limit
		m.close(at, other, driver.ErrShutdown, func() {
			m.s.must("Shutdown", func() { _ = at.node.Shutdown(m.s.context()) })
			at.shut = true
		})
	}},
	{"Broadcast", func(m *model, at, _ *modelSide) { m.broadcast(at, 3) }},
	{"StopListen and StartListen", func(m *model, at, _ *modelSide) {
		if at.node.IsListening() { // established connections do not mind
			require.NoError(m.s, at.node.StopListen())
			require.NoError(m.s, at.node.StartListen(0))
			return
		}
		require.NoError(m.s, at.node.StartListen(0))
		require.NoError(m.s, at.node.StopListen())
	}},
	{"a connection with LoginTimeout (client: IdleTimeout)", func(m *model, at, _ *modelSide) {
		if at == m.server {
			m.restart(driver.Config{LoginTimeout: shortLived}, driver.ErrLoginTimeout)
		} else {
			m.restart(driver.Config{IdleTimeout: shortLived}, driver.ErrIdleTimeout)
		}
	}},
}

// shortLived is a time limit that connections come to, in whatever state they are, and whatever is done to them meanwhile.
const shortLived = 30 * time.Millisecond

// model is the state of a connection and of its peer's, as far as it follows from what was done.
type model struct {
	s              *suite
	server, client *modelSide

	cfg   driver.Config // the time limit of both sides
	limit error         // the reason of it; nil: there is none

	authenticated bool
	over          bool       // one side has ended it, or the limit may
	orderlyBy     *modelSide // it did that with Close; nil: it did not
	contested     bool       // the other side has, too, or somebody who hijacked: then either may be first
}

// modelSide is one side of the connection.
type modelSide struct {
	// Immutable.
	node   *node
	sender int // the number in the packets that it sends

	in      atomic.Pointer[checker]
	conn    driver.Conn
	sent    int
	paused  bool
	closed  bool // Close, or Hijack, has returned
	shut    bool // Shutdown has
	reasons []error
}

func (side *modelSide) pause(paused bool) {
	if side.paused = paused; paused {
		side.conn.PauseReading()
	} else {
		side.conn.ResumeReading()
	}
}

func (s *suite) sequence(ops []byte, what string) {
	s.Helper()
	done := false
	defer func() {
		if !done || s.Failed() {
			s.Logf("the sequence (%s), as a file in testdata/fuzz/FuzzSequence:\ngo test fuzz v1\n[]byte(%q)\nbool(%v)\n%s", what, ops, s.secure, describe(ops))
		}
	}()
	m := &model{s: s}
	m.start()
	for _, op := range ops {
		if m.server.shut || m.client.shut {
			m.settle()
			m.start()
		}
		at, other := m.server, m.client
		if op&0x40 != 0 {
			at, other = other, at
		}
		sequenceOps[int(op&opMask)%len(sequenceOps)].do(m, at, other)
		if m.over && op&settles != 0 {
			m.settle()
			if m.limit != nil {
				m.restart(driver.Config{}, nil)
				continue
			}
			m.start()
		}
	}
	m.stop()
	done = true
}

func describe(ops []byte) string {
	var b strings.Builder
	for _, op := range ops {
		side, then := "server", ""
		if op&0x40 != 0 {
			side = "client"
		}
		if op&settles != 0 {
			then = ", settles"
		}
		fmt.Fprintf(&b, "%s: %s%s\n", side, sequenceOps[int(op&opMask)%len(sequenceOps)].name, then)
	}
	return b.String()
}

// start makes a new connection, and where there are none or one is shut down new drivers.
func (m *model) start() {
	s := m.s
	if m.server == nil || m.server.shut || m.client.shut {
		m.stop()
		m.server, m.client = &modelSide{sender: 0}, &modelSide{sender: 1}
		for _, side := range []*modelSide{m.server, m.client} {
			cfg := m.cfg
			cfg.EventLoops, cfg.OnPacket = 1, side.take
			if m.limit == nil {
				cfg.LoginTimeout = time.Hour
			}
			if side == m.server {
				side.node = s.server(cfg)
			} else {
				side.node = s.client(cfg)
			}
		}
	}
	m.authenticated, m.over, m.orderlyBy, m.contested = false, m.limit != nil, nil, m.limit != nil
	for _, side := range []*modelSide{m.server, m.client} {
		side.in.Store(newChecker(2))
		side.sent, side.paused, side.closed, side.reasons = 0, false, false, nil
		if m.limit != nil {
			side.reasons = []error{m.limit, driver.ErrPeerClosed}
		}
	}
	for tries := 0; !m.connect(); tries++ {
		require.Less(s, tries, 100, "connections that %v ends before they are established", m.limit)
	}
}

// connect connects the sides; false where a time limit was faster.
func (m *model) connect() bool {
	client, server := m.client.node, m.server.node
	if m.limit == nil {
		m.client.conn, m.server.conn = m.s.connect(client, server)
		return true
	}
	clients, servers := len(client.events.conns()), len(server.events.conns())
	_, ended := client.events.counts()
	require.NoError(m.s, client.ConnectTo(server.addr()))
	connected := false
	m.s.await("a connection, or its end", func() bool {
		_, down := client.events.counts() // first: where both were established, that was before
		mine := client.events.conns()
		if len(mine) == clients {
			return down > ended
		}
		m.client.conn = mine[len(mine)-1]
		for _, c := range server.events.conns()[servers:] {
			if c.RemoteAddr() == m.client.conn.LocalAddr() {
				m.server.conn, connected = c, true
			}
		}
		return connected || down > ended
	})
	return connected
}

// restart has new drivers, with a time limit, which the next connection comes to.
func (m *model) restart(cfg driver.Config, limit error) {
	m.stop()
	m.server, m.client, m.cfg, m.limit = nil, nil, cfg, limit
	m.start()
}

func (side *modelSide) take(_ driver.Conn, packet []byte) { side.in.Load().take(packet) }

// stop closes what is there. The events are looked at when the test is over.
func (m *model) stop() {
	if m.server == nil {
		return
	}
	m.s.must("Close", func() { _ = m.client.node.Close() })
	m.s.must("Close", func() { _ = m.server.node.Close() })
	m.arrived(m.server, m.client, false)
	m.arrived(m.client, m.server, false)
}

// arrived: what arrived at one side is a prefix of what the other sent, or all of it.
func (m *model) arrived(at, from *modelSide, all bool) {
	m.s.Helper()
	got, err := at.in.Load().state()
	require.NoError(m.s, err)
	require.LessOrEqual(m.s, got[from.sender], from.sent)
	require.Zero(m.s, got[at.sender], "its own packets")
	if all {
		require.Equal(m.s, from.sent, got[from.sender], "packets that arrived before an orderly end")
	}
}

// send sends packets until there is no room.
func (m *model) send(at *modelSide, count int) {
	var buf []byte
	for range count {
		buf = numbered(buf[:0], at.sender, at.sent, mixedPackets(at.sent))
		err := at.conn.Send(buf)
		switch {
		case err == nil:
			require.False(m.s, at.closed, "Send was taken after Close had returned")
			at.sent++
			continue
		case errors.Is(err, driver.ErrOutboundFull):
			require.False(m.s, at.closed, "Send after Close had returned: %v", err)
		case !m.over:
			m.s.Fatalf("Send on an open connection: %v", err)
		default:
			require.ErrorIs(m.s, err, net.ErrClosed)
		}
		return
	}
}

// broadcast is send by other means.
func (m *model) broadcast(at *modelSide, count int) {
	for range count {
		packet := numbered(nil, at.sender, at.sent, mixedPackets(at.sent))
		rejected := at.node.Stats().SendsRejected
		queued := at.node.Broadcast(packet, func(c driver.Conn) bool { return c.ID() == at.conn.ID() })
		if queued == 0 {
			require.True(m.s, m.over || at.node.Stats().SendsRejected > rejected, "a Broadcast that did not reach an open connection")
			return
		}
		require.False(m.s, at.closed, "Broadcast was taken after Close had returned")
		at.sent++
	}
}

// close is an orderly end.
func (m *model) close(at, other *modelSide, reason error, end func()) {
	m.s.Helper()
	switch {
	case !m.over:
		m.over, m.orderlyBy = true, at
	case m.orderlyBy != at:
		m.contested = true
	}
	at.reasons = append(at.reasons, reason)
	other.reasons = append(other.reasons, driver.ErrPeerClosed)
	end()
	at.closed = true
	require.False(m.s, at.node.IsConnectedTo(at.conn.RemoteAddr()), "connected after Close had returned")
}

// takeOut hijacks; nil where the connection is gone, or the other side does not read what Hijack would have to write.
func (m *model) takeOut(at, other *modelSide) (nc net.Conn) {
	m.s.Helper()
	if other.paused && at.conn.Stats().OutboundBuffered > 0 {
		return nil
	}
	var err error
	m.s.must("Hijack", func() { nc, err = at.conn.Hijack() })
	if err != nil {
		require.True(m.s, m.over, "Hijack of an open connection: %v", err)
		if !at.closed {
			// The other side was ending it: Hijack may have begun before that was seen, and failed to write what was queued.
			m.contested = true
			at.reasons = append(at.reasons, driver.ErrHijacked)
		}
		return nil
	}
	require.False(m.s, at.closed, "Hijack after Close had returned")
	require.ErrorIs(m.s, at.node.awaitEnd(at.conn), driver.ErrHijacked)
	return nc
}

// hijack takes the connection out, and ends it with FIN or a reset.
func (m *model) hijack(at, other *modelSide, reset bool) {
	nc := m.takeOut(at, other)
	if nc == nil {
		return
	}
	m.over, m.contested, at.closed = true, true, true
	at.reasons = append(at.reasons, driver.ErrHijacked)
	other.reasons = append(other.reasons, driver.ErrPeerClosed)
	if reset {
		raw := nc
		if tc, secure := nc.(interface{ NetConn() net.Conn }); secure {
			raw = tc.NetConn()
		}
		if c, ok := raw.(interface{ SetLinger(int) error }); ok {
			_ = c.SetLinger(0)
		}
		raw.Close()
	}
	nc.Close()
}

// adopt takes the connection out and gives it back: nothing is lost, and it goes on.
func (m *model) adopt(at, other *modelSide) {
	if _, secure := at.conn.TLS(); secure {
		return // such a session cannot be adopted
	}
	nc := m.takeOut(at, other)
	if nc == nil {
		return
	}
	c, err := at.node.Adopt(nc)
	if err != nil {
		require.True(m.s, m.over, "Adopt of an open connection: %v", err)
		at.closed, m.contested = true, true
		at.reasons = append(at.reasons, driver.ErrHijacked)
		return
	}
	at.conn, at.paused = c, false
}

// settle waits for both sides' ends, and looks at their reasons and that what was sent before an orderly end arrived.
func (m *model) settle() {
	s := m.s
	s.Helper()
	for _, side := range []*modelSide{m.server, m.client} {
		side.pause(false)
	}
	if m.authenticated && m.limit == driver.ErrLoginTimeout { // then it may not come
		m.close(m.server, m.client, driver.ErrDisconnected, func() { m.server.conn.Close(nil) })
	}
	for _, side := range []*modelSide{m.server, m.client} {
		reason := side.node.awaitEnd(side.conn)
		var fromSocket *driver.Error // the system's, TLS's
		allowed := m.contested && errors.As(reason, &fromSocket)
		for _, r := range side.reasons {
			allowed = allowed || errors.Is(reason, r)
		}
		require.True(s, allowed, "ended with %v, which is none of %v", reason, side.reasons)
		if side == m.orderlyBy && !m.contested {
			require.ErrorIs(s, reason, side.reasons[0], "the first reason wins")
		}
	}
	for _, ends := range [][2]*modelSide{{m.server, m.client}, {m.client, m.server}} {
		m.arrived(ends[0], ends[1], ends[1] == m.orderlyBy && !m.contested)
	}
}
