//go:build linux

package chaos_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gridstream/bench/chaos/kind"
	"gridstream/bench/chaos/oracle"
	"gridstream/driver"
	"gridstream/tlsadapter"
)

// proxies is what stands between the clients and the server.
type proxies struct {
	*arena
	api *toxiproxy.ApiServer
}

func newProxies(a *arena) *proxies {
	return &proxies{a, toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())}
}

// proxy starts one, with the toxics.
func (p *proxies) proxy(toxics ...string) *toxiproxy.Proxy {
	p.Helper()
	proxy := toxiproxy.NewProxy(p.api, "chaos", "127.0.0.1:0", p.server.addr(local).String())
	require.NoError(p, proxy.Start())
	p.Cleanup(proxy.Stop)
	for _, toxic := range toxics {
		p.add(proxy, toxic)
	}
	return proxy
}

func (p *proxies) add(proxy *toxiproxy.Proxy, toxic string) {
	p.Helper()
	_, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic))
	require.NoError(p, err)
}

// through connects a new client to the server through proxy; nil where that fails.
func (p *proxies) through(proxy *toxiproxy.Proxy, cfg driver.Config) *link {
	p.Helper()
	return p.connect(p.client(cfg, local), netip.MustParseAddrPort(proxy.Listen))
}

// Faults that delay, and do not damage: everything arrives, and the end is orderly, whichever side closes.
var delaying = []struct {
	name    string
	toxics  []string
	packets int
}{
	{"Latency", []string{
		`{"type": "latency", "stream": "upstream", "attributes": {"latency": 30, "jitter": 20}}`,
		`{"type": "latency", "stream": "downstream", "attributes": {"latency": 30, "jitter": 20}}`,
	}, 300},
	{"Bandwidth", []string{ // KB/s
		`{"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 100}}`,
		`{"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 50}}`,
	}, 400},
	{"Slicing", []string{
		`{"type": "slicer", "stream": "upstream", "attributes": {"average_size": 24, "size_variation": 20, "delay": 20}}`,
		`{"type": "slicer", "stream": "downstream", "attributes": {"average_size": 24, "size_variation": 20, "delay": 20}}`,
	}, 200},
	{"SlowClose", []string{
		`{"type": "slow_close", "stream": "upstream", "attributes": {"delay": 300}}`,
		`{"type": "slow_close", "stream": "downstream", "attributes": {"delay": 300}}`,
	}, 50},
	{"AllAtOnce", []string{
		`{"type": "slicer", "stream": "upstream", "attributes": {"average_size": 200, "size_variation": 150, "delay": 10}}`,
		`{"type": "latency", "stream": "upstream", "attributes": {"latency": 5, "jitter": 5}}`,
		`{"type": "bandwidth", "stream": "downstream", "attributes": {"rate": 60}}`,
		`{"type": "latency", "stream": "downstream", "attributes": {"latency": 20, "jitter": 10}}`,
		`{"type": "slow_close", "stream": "downstream", "attributes": {"delay": 100}}`,
	}, 200},
}

func TestDelayingProxies(t *testing.T) {
	matrix(t, func(t *testing.T, server, client kind.Kind) {
		for _, tt := range delaying {
			t.Run(tt.name, func(t *testing.T) {
				p := newProxies(newArena(t, server, client, local, driver.Config{}))
				calm := p.meanwhile(driver.Config{}, local)
				for _, byServer := range []bool{false, true} {
					l := p.through(p.proxy(tt.toxics...), driver.Config{})
					require.NotNil(t, l)
					require.True(t, p.talk(l, tt.packets), "%v", l.client.end(l.cc))
					p.ends(l, byServer)
				}
				calm()
			})
		}
	})
}

// cuts are after how many bytes of a direction the connection is cut: in the handshake where there is one, in a length, in a
// packet, between packets, in the middle of much.
var cuts = []int64{1, 2, 7, 100, 600, 1500, 3000, 20000}

// cut is where a cutter ends a connection.
type cut struct {
	down  bool // the server's bytes count, else the client's
	after int64
	reset bool // both sides are reset; else that direction gets a FIN
}

func (c cut) String() string {
	return map[bool]string{false: "up", true: "down"}[c.down] + map[bool]string{false: "/FIN", true: "/reset"}[c.reset]
}

// cutter forwards one connection to the server, up to the cut.
func (a *arena) cutter(c cut) netip.AddrPort {
	a.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(a, err)
	done := make(chan struct{})
	a.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		client, err := ln.AcceptTCP()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(a.server.addr(local)))
		if err != nil {
			return
		}
		defer server.Close()
		reset := func() {
			for _, nc := range []*net.TCPConn{client, server} {
				_ = nc.SetLinger(0)
				nc.Close()
			}
		}
		forward := func(to, from *net.TCPConn, cutHere bool) {
			in, out := struct{ io.Reader }{from}, struct{ io.Writer }{to} // not splice, whose pipes stay in a pool
			if cutHere {
				_, _ = io.CopyN(out, in, c.after)
				if c.reset {
					reset()
					return
				}
			} else {
				_, _ = io.Copy(out, in)
			}
			_ = to.CloseWrite()
			_, _ = io.Copy(io.Discard, in)
		}
		var both sync.WaitGroup
		both.Go(func() { forward(server, client, !c.down) })
		both.Go(func() { forward(client, server, c.down) })
		both.Wait()
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// TestCutConnections: the connection ends at any byte, with FIN or with a reset: what arrived is a prefix, both sides are told, and a
// truncated TLS stream is not taken for the peer's close.
func TestCutConnections(t *testing.T) {
	matrix(t, func(t *testing.T, server, client kind.Kind) {
		for _, c := range []cut{{}, {reset: true}, {down: true}, {down: true, reset: true}} {
			t.Run(c.String(), func(t *testing.T) {
				a := newArena(t, server, client, local, driver.Config{})
				calm := a.meanwhile(driver.Config{}, local)
				established := 0
				for _, c.after = range cuts {
					l := a.connect(a.client(driver.Config{}, local), a.cutter(c))
					if l == nil {
						continue
					}
					established++
					require.False(t, a.talk(l, 800), "it was to be cut after %d bytes", c.after)
					a.awaitEnd(l)
					if flow := map[bool]*oracle.Flow{false: l.up, true: l.down}[c.down]; !client.TLS && !c.reset {
						require.Equal(t, oracle.Whole(c.after, a.server.PacketOverheadSize()), flow.Received())
					}
					if c.down {
						a.isCut(c, l.client.end(l.cc))
					} else {
						a.isCut(c, a.server.end(a.serverConn(l)))
					}
				}
				require.NotZero(t, established)
				calm()
				a.await("the server's side of what was cut", func() bool { st := a.server.Stats(); return st.Disconnected == st.Accepted })
			})
		}
	})
}

// isCut: reason is that of the side that the cut is in front of.
func (a *arena) isCut(c cut, reason error) {
	a.Helper()
	switch {
	case reason == nil: // the server had no packet of it
	case errors.Is(reason, syscall.ECONNRESET), errors.Is(reason, syscall.EPIPE):
	case c.reset:
		a.Errorf("%v after %d bytes: ended with %v, not with a reset", c, c.after, reason)
	case a.clientKind.TLS && !errors.Is(reason, tlsadapter.ErrTruncated), !a.clientKind.TLS && !errors.Is(reason, driver.ErrPeerClosed):
		a.Errorf("%v after %d bytes: ended with %v", c, c.after, reason)
	}
}

// hole swallows what goes that way, and keeps the end of the connection to itself as well.
func (p *proxies) hole(proxy *toxiproxy.Proxy, stream string) {
	p.Helper()
	p.add(proxy, `{"type": "timeout", "stream": "`+stream+`", "attributes": {"timeout": 0}}`)
	end := "end of " + stream
	p.add(proxy, `{"type": "slow_close", "name": "`+end+`", "stream": "`+stream+`", "attributes": {"delay": 600000}}`)
	p.Cleanup(func() { _ = proxy.Toxics.RemoveToxic(context.Background(), end) }) // else it waits on
}

// TestBlackHole: the link is half-open, nothing arrives in one direction, or in both, and nobody says so: the side that hears nothing ends by
// its IdleTimeout, while the other one still hears it.
func TestBlackHole(t *testing.T) {
	leaksNothing(t)
	t.Run("all", func(t *testing.T) { // over when the parallel ones are
		matrix(t, func(t *testing.T, server, client kind.Kind) {
			t.Parallel()
			cfg := driver.Config{IdleTimeout: 5 * time.Second}
			p := newProxies(openArena(t, server, client, local, cfg))
			calm := p.meanwhile(driver.Config{}, local)
			type half struct {
				*link
				up, down bool // swallowed
			}
			var halves []half
			var talking sync.WaitGroup
			for _, h := range []half{{up: true}, {down: true}, {up: true, down: true}} {
				proxy := p.proxy()
				h.link = p.through(proxy, cfg)
				require.NotNil(t, h.link)
				require.True(t, p.talk(h.link, 20))
				if h.up {
					p.hole(proxy, "upstream")
				}
				if h.down {
					p.hole(proxy, "downstream")
				}
				talking.Go(func() { p.trickle(h.link.up, h.cc) })
				talking.Go(func() { p.trickle(h.link.down, p.serverConn(h.link)) })
				halves = append(halves, h)
			}
			for _, h := range halves {
				p.awaitEnd(h.link)
				for end, deaf := range map[error]bool{p.server.end(p.serverConn(h.link)): h.up, h.client.end(h.cc): h.down} {
					require.Equal(t, deaf, errors.Is(end, driver.ErrIdleTimeout), "up swallowed: %v, down: %v: ended with %v", h.up, h.down, end)
				}
			}
			talking.Wait()
			calm()
		})
	})
}

// trickle sends a packet now and then until the connection ends.
func (a *arena) trickle(f *oracle.Flow, c driver.Conn) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for f.Send(a.ctx, c, f.Sent()+1) == nil {
		<-tick.C
	}
}

// TestProxyRestarts: the proxy goes, with all that it carries, and comes back on its port: clients are told, and connect again.
func TestProxyRestarts(t *testing.T) {
	matrix(t, func(t *testing.T, server, client kind.Kind) {
		p := newProxies(newArena(t, server, client, local, driver.Config{}))
		calm := p.meanwhile(driver.Config{}, local)
		proxy := p.proxy()
		player := p.client(driver.Config{}, local)
		addr := netip.MustParseAddrPort(proxy.Listen)
		for range 3 {
			l := p.connect(player, addr)
			require.NotNil(t, l)
			require.True(t, p.talk(l, 20))
			proxy.Stop()
			p.awaitEnd(l)
			require.Nil(t, p.connect(player, addr), "connected to nobody")
			require.NoError(t, proxy.Start())
		}
		l := p.connect(player, addr)
		require.NotNil(t, l)
		require.True(t, p.talk(l, 20))
		p.ends(l, false)
		calm()
	})
}
