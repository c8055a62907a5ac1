package loop_test

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/loop/link"
)

// TestLatencyOfALoopWithoutConnections is none, whatever the last one did.
func TestLatencyOfALoopWithoutConnections(t *testing.T) {
	const held = 200 * time.Millisecond
	e := newEngine(t, link.Config{Loops: 1})
	c, peer := pair(t, e, func(e *end, b []byte) {
		time.Sleep(held) // a callback that takes long
		e.Abort(io.EOF)
	})
	_, err := peer.Write([]byte("x"))
	require.NoError(t, err)
	c.waitClosed(t)
	eventually(t, "that it is none", func() bool { return e.Stats().LoopLatency == 0 })
}
