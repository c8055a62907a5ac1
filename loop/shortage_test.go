//go:build linux || darwin

package loop_test

import (
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/loop/link"
)

// limitDescriptors is RLIMIT_NOFILE of this process until the test ends.
func limitDescriptors(t *testing.T, n uint64) {
	var r syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r))
	before := r
	r.Cur = n
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r))
	t.Cleanup(func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)) })
}

// takeDescriptors takes all that are left.
func takeDescriptors(t *testing.T) {
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			return
		}
		t.Cleanup(func() { f.Close() })
	}
}

// park pauses reading, and waits until that is so.
func park(t *testing.T, c *end) {
	c.Pause(1)
	c.Wake()
	eventually(t, "OnWake", func() bool { s := c.snapshot(); return s.wakes == 1 || s.closes > 0 })
}

// TestPausingWithoutDescriptors: one connection after the other, whoever takes what gets free.
func TestPausingWithoutDescriptors(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	var conns []*end
	for range 3 {
		c, _ := pair(t, e, nil)
		conns = append(conns, c)
	}
	limitDescriptors(t, 200)
	takeDescriptors(t)
	for _, c := range conns {
		park(t, c)
		require.Equal(t, link.Open, c.State(), "%v", c.snapshot().reason)
		c.Wake() // behind what pausing left to the loop
		eventually(t, "OnWake", func() bool { return c.snapshot().wakes == 2 })
		takeDescriptors(t)
	}
}

// TestDetachWithoutDescriptors of a connection that is paused.
func TestDetachWithoutDescriptors(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	c, _ := pair(t, e, nil)
	park(t, c)
	limitDescriptors(t, 200)
	takeDescriptors(t)
	nc, _, err := c.Detach(io.ErrNoProgress)
	require.NoError(t, err)
	require.NoError(t, nc.Close())
}
