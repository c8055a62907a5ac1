package tlsadapter_test

import (
	"bytes"
	"crypto/tls"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gridstream/tlsadapter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// end is one end of a connection as a driver runs it, all on one goroutine.
type end struct {
	*tlsadapter.Session
	got    bytes.Buffer // plaintext
	opened bool         // Open has taken what came with the handshake
	err    error        // first error; io.EOF is close_notify
}

func newPair(client, server *tls.Config) (c, s *end) {
	return &end{Session: tlsadapter.NewClient(client)}, &end{Session: tlsadapter.NewServer(server)}
}

// receive is what a driver does with bytes from its socket.
func (e *end) receive(p []byte) {
	if e.err != nil {
		return
	}
	if !e.opened {
		if e.Feed(p) {
			_, e.err = e.Step()
		}
		if e.State() != tlsadapter.StateEstablished {
			return
		}
		p, e.opened = nil, true
	}
	if err := e.Open(p, func(plain []byte) { e.got.Write(plain) }); e.err == nil {
		e.err = err
	}
}

// cut says how many of the n bytes that wait travel together.
type cut func(n int) int

func whole(n int) int  { return n }
func single(n int) int { return 1 }

func random(seed uint64) cut {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(n int) int { return 1 + rng.IntN(min(n, 1+rng.IntN(2000))) }
}

// carry moves what each end has to say to the other until both are silent. It returns the number of bytes carried.
func carry(c, s *end, cut cut) (total int) {
	c.receive(nil)
	for moved := -1; moved != 0; total += moved {
		moved = c.carryTo(s, cut) + s.carryTo(c, cut)
	}
	return total
}

func (e *end) carryTo(to *end, cut cut) (n int) {
	wire := e.TakeOutput(nil)
	for n < len(wire) {
		m := cut(len(wire) - n)
		to.receive(wire[n : n+m])
		n += m
	}
	return n
}

// establish runs the handshake and requires it to succeed at both ends.
func establish(t testing.TB, client, server *tls.Config) (c, s *end) {
	t.Helper()
	c, s = newPair(client, server)
	carry(c, s, whole)
	require.NoError(t, c.err)
	require.NoError(t, s.err)
	require.Equal(t, tlsadapter.StateEstablished, c.State())
	require.Equal(t, tlsadapter.StateEstablished, s.State())
	return c, s
}
