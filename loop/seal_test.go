package loop_test

import (
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/loop/link"
)

// answering is a Sealer that owes its peer a byte for each that it gets, as TLS does with key updates.
type answering struct {
	end
	owed int
}

func (a *answering) OnOpen() { a.Sealed() }

func (a *answering) OnData(b []byte) {
	a.owed += len(b)
	_ = a.FlushSealer()
}

func (a *answering) Seal(dst, plain []byte) ([]byte, error) {
	n := a.owed
	a.owed = 0
	return append(append(dst, make([]byte, n)...), plain...), nil
}

func (a *answering) SealEnd(dst []byte) ([]byte, error) { return dst, nil }

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAnswersThatAreNeverAllWritten, to a peer that reads just so fast, take no more memory than those that wait.
func TestAnswersThatAreNeverAllWritten(t *testing.T) {
	const limit, chunk, total = 1 << 20, 64 << 10, 32 << 20
	e := newEngine(t, link.Config{Loops: 1, OutboundLimit: limit})
	a := &answering{}
	nc, peer := accepted(t)
	require.NoError(t, nc.SetWriteBuffer(16<<10)) // it takes less at once than there is
	require.NoError(t, e.Attach(nc, a, a.set))
	require.NoError(t, peer.SetReadBuffer(16<<10))
	before, most := heap(), uint64(0)
	buf := make([]byte, chunk)
	for sent := 0; sent < total; {
		if a.Buffered() > limit/2 {
			_, err := io.ReadFull(peer, buf)
			require.NoError(t, err)
			continue
		}
		_, err := peer.Write(buf)
		require.NoError(t, err)
		sent += chunk
		eventually(t, "that it is received", func() bool { return a.Received() == uint64(sent) })
		if sent%(4<<20) == 0 {
			most = max(most, heap())
		}
	}
	require.Less(t, most, before+8*limit)
	runtime.KeepAlive(a)
}
