package chaos_test

import (
	"errors"
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
			onWire(t, driver.Config{}, func(a *arena) {
				port := a.server.Port()
				w.set(port, tt.condition)
				a.weathers(func(rounds int) bool { return tt.loss == 0 || w.losses(port) >= 5*rounds })
			})
		})
	}
	t.Run("PartitionThatHeals", func(t *testing.T) {
		onWire(t, driver.Config{}, func(a *arena) { a.partitioned(w) })
	})
	t.Run("PartitionThatStays", func(t *testing.T) {
		cfg := driver.Config{StallTimeout: 2 * time.Second, IdleTimeout: 4 * time.Second}
		onWire(t, cfg, func(a *arena) { a.cutOff(w, cfg) })
	})
	for _, tt := range lossy {
		t.Run("netem/"+tt.name, func(t *testing.T) {
			if ok, why := w.netem(t, tt.condition); !ok {
				t.Skip(why)
			}
			onWire(t, driver.Config{}, func(a *arena) { a.weathers(nil) })
		})
	}
}

// onWire runs f for all kinds at the same time.
func onWire(t *testing.T, cfg driver.Config, f func(a *arena)) {
	leaksNothing(t)
	t.Run("all", func(t *testing.T) { // over when the parallel ones are
		matrix(t, func(t *testing.T, server, client kind.Kind) {
			t.Parallel()
			a := openArena(t, server, client, "", cfg)
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

// partitioned: what is sent while nothing gets through arrives when it does again.
func (a *arena) partitioned(w *wire) {
	l := a.acrossWire(driver.Config{})
	require.True(a, a.talk(l, 50))
	w.set(a.server.Port(), condition{partitioned: true})
	var sending sync.WaitGroup
	sending.Go(func() { _ = l.up.Send(a.ctx, l.cc, l.up.Sent()+200) })
	sending.Go(func() { _ = l.down.Send(a.ctx, a.serverConn(l), l.down.Sent()+200) })
	a.await("TCP to try again and again", func() bool { return w.triedInVain(a.server.Port()) > 4 })
	w.set(a.server.Port(), condition{})
	sending.Wait()
	require.True(a, a.talk(l, 50), "%v", l.client.end(l.cc))
	a.ends(l, false)
}

// cutOff: both sides end by themselves, those that have something to send and those that wait.
func (a *arena) cutOff(w *wire, cfg driver.Config) {
	quiet, talking := a.acrossWire(cfg), a.acrossWire(cfg)
	for _, l := range []*link{quiet, talking} {
		require.True(a, a.talk(l, 50))
	}
	w.set(a.server.Port(), condition{partitioned: true})
	const forEver = 1 << 20
	var sending sync.WaitGroup
	sending.Go(func() { _ = talking.up.Send(a.ctx, talking.cc, forEver) })
	sending.Go(func() { _ = talking.down.Send(a.ctx, a.serverConn(talking), forEver) })
	for _, l := range []*link{quiet, talking} {
		a.awaitEnd(l)
		for _, reason := range []error{l.client.end(l.cc), a.server.end(a.serverConn(l))} {
			if l == quiet {
				require.ErrorIs(a, reason, driver.ErrIdleTimeout)
			} else if !errors.Is(reason, driver.ErrStallTimeout) {
				require.ErrorIs(a, reason, driver.ErrIdleTimeout)
			}
		}
	}
	sending.Wait()
}
