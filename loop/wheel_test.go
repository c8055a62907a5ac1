package loop_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/loop"
)

// Against a model: an entry comes up not before its time (but for those beyond the wheel's reach), and not later
// than the first advance after it.
func TestWheelComesUpInTime(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := loop.NewWheel()
		conns := make([]*loop.Conn, 50)
		due := make(map[*loop.Conn]time.Duration)
		for i := range conns {
			conns[i] = new(loop.Conn)
		}
		const reach = 250 * 256 * loop.Tick
		var now time.Duration
		for range 2000 {
			c := conns[rng.IntN(len(conns))]
			switch rng.IntN(5) {
			case 0, 1:
				d := time.Duration(rng.Int64N(int64(1) << (20 + rng.IntN(24))))
				first := w.Schedule(c, now, d)
				require.Equal(t, len(due) == 0, first)
				if at, ok := due[c]; !ok || now+d < at {
					due[c] = now + d
				}
			case 2:
				w.Remove(c)
				delete(due, c)
			default:
				now += time.Duration(rng.Int64N(int64(1) << (20 + rng.IntN(17))))
				came := make(map[*loop.Conn]bool)
				for _, c := range w.Advance(now) {
					at, ok := due[c]
					require.True(t, ok, "came up twice, or was removed")
					require.False(t, came[c])
					came[c] = true
					require.LessOrEqual(t, min(at, now+reach), now)
					delete(due, c)
				}
				for _, at := range due {
					require.Greater(t, at, now-2*loop.Tick)
				}
			}
			require.EqualValues(t, len(due), w.Armed())
		}
	}
}
