package chaos_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/bench/chaos/kind"
	"gridstream/driver"
)

// Wires that damage nothing for good: TCP makes up for it, and the drivers do not notice.
var lossy = []struct {
	name string
	condition
}{
	{"Delay", condition{delay: 20 * time.Millisecond}},
	{"Loss", condition{delay: 2 * time.Millisecond, loss: 0.05}},
	{"Reordering", condition{delay: 10 * time.Millisecond, jitter: 8 * time.Millisecond, reorder: 0.25, duplicate: 0.02}},
	{"AllAtOnce", condition{delay: 10 * time.Millisecond, jitter: 5 * time.Millisecond, loss: 0.02, reorder: 0.1, duplicate: 0.01}},
}

// TestWires: packets are lost, delayed, overtake one another; the network is partitioned, and heals or does not. All kinds at
// once, each with innocent connections that are not on the wire.
func TestWires(t *testing.T) {
	if !isolated(t, network{commands: []string{"ip", "tc"}, files: []string{"/dev/net/tun"}}) {
		return
	}
	w := layWire(t)
	for _, tt := range lossy {
		t.Run(tt.name, func(t *testing.T) {
			onWire(t, w, driver.Config{}, func(a *arena) {
				port := a.server.Port()
				w.set(port, tt.condition)
				a.weathers(func(rounds int) bool { return tt.loss == 0 || w.losses(port) >= 5*rounds })
			})
		})
	}
	t.Run("PartitionThatHeals", func(t *testing.T) {
		onWire(t, w, driver.Config{}, func(a *arena) { a.partitioned(w) })
	})
	t.Run("PartitionThatStays", func(t *testing.T) {
		cfg := driver.Config{StallTimeout: 2 * time.Second, IdleTimeout: 5 * time.Second}
		onWire(t, w, cfg, func(a *arena) { a.cutOff(w, cfg) })
	})
	for name, to := range map[string]direction{"ToServer": toServer, "ToClient": toClient} {
		t.Run("PartitionOneWay/"+name, func(t *testing.T) {
			cfg := driver.Config{IdleTimeout: 5 * time.Second}
			onWire(t, w, cfg, func(a *arena) { a.halfCutOff(w, cfg, to) })
		})
	}
	for _, tt := range lossy {
		t.Run("netem/"+tt.name, func(t *testing.T) {
			if ok, why := w.netem(t, tt.condition); !ok {
				t.Skip(why)
			}
			onWire(t, w, driver.Config{}, func(a *arena) { a.weathers(nil) })
		})
	}
}

// onWire runs f for all kinds at the same time.
func onWire(t *testing.T, w *wire, cfg driver.Config, f func(a *arena)) {
	leaksNothing(t)
	t.Run("all", func(t *testing.T) { // over when the parallel ones are
		matrix(t, func(t *testing.T, server, client kind.Kind) {
			t.Parallel()
			a := openArena(t, server, client, "", cfg)
			port := a.server.Port()
			t.Cleanup(func() { w.forget(port) })
			calm := a.meanwhile(driver.Config{}, local)
			f(a)
			calm()
		})
	})
}

// acrossWire connects a new client.
func (a *arena) acrossWire(cfg driver.Config) *link {
	a.Helper()
	l := a.connect(a.client(cfg, here), a.server.addr(thereBehind))
	require.NotNil(a, l)
	return l
}

// weathers: everything arrives, and both sides' ends are orderly. Connections talk on until enough, which is asked about the first and then
// about both, says that the wire did its worst; nil: it did.
func (a *arena) weathers(enough func(connections int) bool) {
	for i, byServer := range []bool{false, true} {
		l := a.acrossWire(driver.Config{})
		a.await("packets that are lost", func() bool {
			require.True(a, a.talk(l, 300), "%v", l.client.end(l.cc))
			return enough == nil || enough(i+1)
		})
		a.ends(l, byServer)
	}
}

// partitioned: what is sent while nothing gets through, more than the kernel takes, arrives when it does again.
func (a *arena) partitioned(w *wire) {
	l := a.acrossWire(driver.Config{})
	require.True(a, a.talk(l, 50))
	w.set(a.server.Port(), condition{partitioned: bothWays})
	ctx, enough := context.WithCancel(a.ctx)
	defer enough()
	var sending sync.WaitGroup
	sending.Go(func() { _ = l.up.Send(ctx, l.cc, forEver) })
	sending.Go(func() { _ = l.down.Send(ctx, a.serverConn(l), forEver) })
	a.await("TCP to try again and again", func() bool { return w.triedInVain(a.server.Port()) > 4 })
	enough()
	sending.Wait()
	for _, c := range []driver.Conn{l.cc, a.serverConn(l)} {
		require.Greater(a, c.Stats().OutboundBuffered, driver.DefaultOutboundBufferSize/2, "the kernel took it all")
	}
	w.set(a.server.Port(), condition{})
	require.True(a, a.talk(l, 50), "%v", l.client.end(l.cc))
	a.ends(l, false)
}

// forEver are more packets than there is time for.
const forEver = 1 << 20

// cutOff: both sides end by themselves, those that have something to send and those that wait.
func (a *arena) cutOff(w *wire, cfg driver.Config) {
	quiet, talking := a.acrossWire(cfg), a.acrossWire(cfg)
	for _, l := range []*link{quiet, talking} {
		require.True(a, a.talk(l, 50))
	}
	w.set(a.server.Port(), condition{partitioned: bothWays})
	var sending sync.WaitGroup
	sending.Go(func() { _ = talking.up.Send(a.ctx, talking.cc, forEver) })
	sending.Go(func() { _ = talking.down.Send(a.ctx, a.serverConn(talking), forEver) })
	for l, want := range map[*link]error{quiet: driver.ErrIdleTimeout, talking: driver.ErrStallTimeout} {
		a.awaitEnd(l)
		for _, reason := range []error{l.client.end(l.cc), a.server.end(a.serverConn(l))} {
			require.ErrorIs(a, reason, want)
		}
	}
	sending.Wait()
}

// halfCutOff: what goes to one side is lost, with the acknowledgements: that side ends by itself. The other one hears of the end, or nothing any
// more.
func (a *arena) halfCutOff(w *wire, cfg driver.Config, to direction) {
	l := a.acrossWire(cfg)
	require.True(a, a.talk(l, 50))
	w.set(a.server.Port(), condition{partitioned: to})
	var talking sync.WaitGroup
	talking.Go(func() { a.trickle(l.up, l.cc) })
	talking.Go(func() { a.trickle(l.down, a.serverConn(l)) })
	a.awaitEnd(l)
	deaf := a.server.end(a.serverConn(l))
	if to == toClient {
		deaf = l.client.end(l.cc)
	}
	require.ErrorIs(a, deaf, driver.ErrIdleTimeout)
	talking.Wait()
}
