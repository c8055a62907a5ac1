package load_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gridstream/bench/load"
)

func TestMain(m *testing.M) {
	load.Main()
	goleak.VerifyTestMain(m)
}

// answerer makes the answer to the n-th packet of a connection out of it; nil: none.
type answerer func(n int, frame []byte) []byte

func echo(_ int, frame []byte) []byte { return frame }

// serve is a server, a goroutine for each connection, until the test ends.
func serve(t *testing.T, answer answerer) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() { answerAll(nc, answer) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		work.Wait()
	})
	return ln.Addr().String()
}

func answerAll(nc net.Conn, answer answerer) {
	defer nc.Close()
	header := make([]byte, 2)
	for n := 0; ; n++ {
		if _, err := io.ReadFull(nc, header); err != nil {
			return
		}
		frame := append(slices.Clone(header), make([]byte, binary.BigEndian.Uint16(header))...)
		if _, err := io.ReadFull(nc, frame[2:]); err != nil {
			return
		}
		if _, err := nc.Write(answer(n, frame)); err != nil {
			return
		}
	}
}

func start(t *testing.T, r load.Role) *load.Fleet {
	t.Helper()
	f, err := load.Start(r)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.End()) })
	return f
}

func TestFleetOfSeveralProcessesCountsEveryAnswer(t *testing.T) {
	f := start(t, load.Role{Kind: load.Echo, Addr: serve(t, echo), Conns: 100, PerProcess: 30, Active: 50, Depth: 3, Size: 64})
	require.NoError(t, f.Connect())
	require.NoError(t, f.Mark())
	require.NoError(t, f.Start())
	time.Sleep(50 * time.Millisecond)
	r, err := f.Stop()
	require.NoError(t, err)
	require.Positive(t, r.Count)
	require.Equal(t, r.Count, r.Latency.Count())
	require.Positive(t, r.Latency.Quantile(0.5))
}

func TestFleetConnectsAgainAfterDisconnect(t *testing.T) {
	f := start(t, load.Role{Kind: load.Sink, Addr: serve(t, echo), Conns: 20, Size: 64})
	for range 3 {
		require.NoError(t, f.Connect())
		require.NoError(t, f.Disconnect())
	}
}

func TestFleetChurns(t *testing.T) {
	f := start(t, load.Role{Kind: load.Churn, Addr: serve(t, echo), Conns: 5, Size: 64})
	require.NoError(t, f.Connect())
	require.NoError(t, f.Mark())
	require.NoError(t, f.Start())
	time.Sleep(50 * time.Millisecond)
	r, err := f.Stop()
	require.NoError(t, err)
	require.Positive(t, r.Count)
}

func TestFleetFindsWrongAnswers(t *testing.T) {
	const at = 20 // packets into the load
	once := func(wrong answerer) answerer {
		return func(n int, frame []byte) []byte {
			if n == at {
				return wrong(n, frame)
			}
			return frame
		}
	}
	for name, tc := range map[string]struct {
		answer answerer
		want   string
	}{
		"one is missing":  {once(func(int, []byte) []byte { return nil }), "is due"},
		"one comes twice": {once(func(_ int, f []byte) []byte { return slices.Concat(f, f) }), "is due"},
		"another content": {once(func(_ int, f []byte) []byte { f[len(f)-1]++; return f }), "another content"},
		"another connection": {once(func(_ int, f []byte) []byte {
			f[2+11]++
			return f
		}), "the answer to connection"},
		"too short": {once(func(_ int, f []byte) []byte {
			binary.BigEndian.PutUint16(f, uint16(len(f)-3))
			return f[:len(f)-1]
		}), "an answer of 63 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, load.Role{Kind: load.Echo, Addr: serve(t, tc.answer), Conns: 4, Depth: 4, Size: 64})
			require.NoError(t, f.Connect())
			require.NoError(t, f.Start())
			require.NoError(t, f.Mark())
			time.Sleep(50 * time.Millisecond)
			_, err := f.Stop()
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestFleetTellsThatNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	f := start(t, load.Role{Kind: load.Echo, Addr: ln.Addr().String(), Conns: 3, Size: 64})
	require.Error(t, f.Connect())
}

func TestSinkFindsPacketsOutOfOrder(t *testing.T) {
	f := start(t, load.Role{Kind: load.Sink, Conns: 1, Size: 64, Addr: serve(t, func(n int, frame []byte) []byte {
		out := frame // the answer to the first packet, and two that are not in order
		for _, seq := range []int{1, 0} {
			p := make([]byte, 64)
			load.Fill(p, 0, seq)
			out = append(binary.BigEndian.AppendUint16(out, 64), p...)
		}
		return out
	})})
	require.ErrorContains(t, errOf(f.Connect, func() error { return f.Expect(2) }, f.Await), "where 0 is due")
}

// errOf is the first error.
func errOf(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
