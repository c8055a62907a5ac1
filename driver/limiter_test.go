package driver

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/loop/link"
)

// pausable is a link of which the limiter sees no more than this.
type pausable struct {
	link.Link
	paused atomic.Uint32
}

func (p *pausable) Pause(why link.Pause)  { p.paused.Or(uint32(why)) }
func (p *pausable) Resume(why link.Pause) { p.paused.And(^uint32(why)) }
func (p *pausable) Paused() bool          { return p.paused.Load() != 0 }

// let is how many packets are let through until one is not, at most.
func (l *limiter) let(most int) (n int) {
	l.credit()
	for n < most && l.packets.take(1) {
		n++
	}
	return n
}

func TestRateOverPauses(t *testing.T) {
	const rate = 100
	newLimited := func() (*limiter, *pausable) { return newLimiter(&Config{PacketsPerSecond: rate}), &pausable{} }
	pausedFor := func(l *limiter, p *pausable, d time.Duration) {
		l.pause(p, pauseUser)
		time.Sleep(d)
		l.resume(p, pauseUser)
	}

	t.Run("what waited meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			pausedFor(l, p, 10*time.Second)
			require.Equal(t, 11*rate, l.let(1e6))
		})
	})
	t.Run("what waited meanwhile of a peer that was quiet before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			require.Equal(t, 1, l.let(1))
			time.Sleep(5 * time.Second)
			pausedFor(l, p, 10*time.Second)
			require.Equal(t, 11*rate, l.let(1e6))
		})
	})
	t.Run("each time counts once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			n := 0
			for range 100 { // ten seconds, half of them paused
				pausedFor(l, p, 50*time.Millisecond)
				time.Sleep(50 * time.Millisecond)
				n += l.let(1e6)
			}
			require.InDelta(t, 11*rate-5, n, 1) // the first 50 ms find the bucket full
		})
	})
	t.Run("no hoard", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			pausedFor(l, p, time.Hour)
			time.Sleep(time.Second) // it is read, and nothing comes
			require.Equal(t, rate, l.let(1e6))
		})
	})
	t.Run("no hoard of several", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			pausedFor(l, p, time.Hour)
			time.Sleep(time.Second)
			pausedFor(l, p, 2*time.Second)
			require.Equal(t, 3*rate, l.let(1e6))
		})
	})
	t.Run("no hoard behind a packet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			pausedFor(l, p, time.Hour)
			require.Equal(t, 1, l.let(1))
			time.Sleep(time.Second)
			pausedFor(l, p, 2*time.Second)
			require.Equal(t, 3*rate, l.let(1e6))
		})
	})
	t.Run("two reasons", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, p := newLimited()
			l.pause(p, pauseUser)
			pausedFor(l, p, 2*time.Second)
			l.pause(p, pauseInbound)
			l.resume(p, pauseUser)
			time.Sleep(time.Second)
			l.resume(p, pauseInbound)
			require.Equal(t, 4*rate, l.let(1e6))
		})
	})
}

// TestLimiterAgreesWithItsLink, whoever pauses and resumes at the same time.
func TestLimiterAgreesWithItsLink(t *testing.T) {
	l, p := newLimiter(&Config{PacketsPerSecond: 1}), &pausable{}
	for range 10_000 {
		var both sync.WaitGroup
		for _, why := range []link.Pause{pauseUser, pauseInbound} {
			both.Go(func() {
				l.pause(p, why)
				l.resume(p, why)
			})
		}
		both.Wait()
		require.True(t, l.since.IsZero())
		l.pause(p, pauseUser)
		both.Go(func() { l.resume(p, pauseUser) })
		both.Go(func() { l.pause(p, pauseInbound) })
		both.Wait()
		require.False(t, l.since.IsZero())
		l.resume(p, pauseInbound)
	}
}
