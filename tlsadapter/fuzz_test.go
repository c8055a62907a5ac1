package tlsadapter_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

// FuzzServerSessionInput gives a server's session arbitrary bytes, before and after its handshake: no panic, an error is
// sticky, and what is kept stays within one record.
func FuzzServerSessionInput(f *testing.F) {
	const oneRecord = 5 + 16384 + 2048
	c := tlsadapter.NewClient(clientConfig())
	c.Feed(nil)
	c.Step()
	hello := c.TakeOutput(nil)
	c.Abort()
	for _, seed := range [][]byte{
		hello,
		hello[:100],
		append(bytes.Clone(hello), 20, 3, 3, 0, 1, 1),
		[]byte("GET / HTTP/1.1\r\n\r\n"),
		{22, 3, 1, 0, 0},
		{22, 3, 1, 0x40, 0},
		{22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff},
		{21, 3, 3, 0, 2, 2, 40},
		{23, 3, 3, 0, 20, 1, 2, 3},
	} {
		f.Add(seed, uint16(3), false)
		f.Add(seed, uint16(len(seed)), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, chunk uint16, established bool) {
		s := &end{Session: tlsadapter.NewServer(serverConfig())}
		if established {
			_, s = establish(t, clientConfig(), serverConfig())
		}
		defer s.Abort()
		for piece := range slices.Chunk(input, int(chunk)+1) {
			s.receive(piece)
			require.LessOrEqual(t, s.Buffered(), oneRecord+len(piece))
			require.LessOrEqual(t, s.OutputLen(), 32<<10)
		}
		if s.err == nil {
			return
		}
		if s.err != io.EOF {
			require.Equal(t, tlsadapter.StateFailed, s.State())
		}
		require.Zero(t, s.Buffered())
		require.False(t, s.Feed(input))
		err := s.Open(input, nil)
		require.True(t, err == s.err || errors.Is(err, s.err), "sticky: %v then %v", s.err, err)
	})
}

// FuzzSessionFragmentation runs a session by a script that says who seals how much and how many bytes arrive where:
// both sides get exactly the plaintext that was sealed.
func FuzzSessionFragmentation(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{0x11, 0x22, 0x33, 0xff, 0xfe, 0xfd, 0xfc}, true)
	f.Add(bytes.Repeat([]byte{0xf0, 0xf1, 0x06, 0x07, 0x82, 0x83}, 40), false)
	f.Add(bytes.Repeat([]byte{0xff, 0xfe, 0xfb, 0xfa, 0x00, 0x01, 0x0c}, 40), true)
	f.Fuzz(func(t *testing.T, script []byte, tls12 bool) {
		client := clientConfig()
		if tls12 {
			client.MaxVersion = tls.VersionTLS12
		}
		c, s := newPair(client, serverConfig())
		ends, wires, sent := [2]*end{c, s}, [2][]byte{}, [2][]byte{}
		deliver := func(to, n int) {
			from := 1 - to
			wires[from] = ends[from].TakeOutput(wires[from])
			n = min(n, len(wires[from]))
			ends[to].receive(wires[from][:n])
			wires[from] = wires[from][n:]
		}
		c.receive(nil)
		for i, op := range script {
			// Bit 0: which end. Bit 1: seal or receive. The others: how much, 1 byte to 16 KiB.
			e, n := int(op&1), 1<<(op>>4)>>1|int(op>>2&3)+1
			if op&2 != 0 {
				deliver(e, n)
				continue
			}
			if ends[e].opened {
				text := bytes.Repeat([]byte{byte(i)}, n)
				require.NoError(t, ends[e].Seal(text))
				sent[e] = append(sent[e], text...)
			}
		}
		for moved := true; moved; {
			moved = false
			for e, end := range ends {
				if moved = moved || end.OutputLen()+len(wires[e]) > 0; moved {
					deliver(1-e, 1<<20)
				}
			}
		}
		for e, end := range ends {
			require.NoError(t, end.err)
			require.Equal(t, tlsadapter.StateEstablished, end.State())
			require.True(t, bytes.Equal(sent[1-e], end.got.Bytes()))
			require.Zero(t, end.Buffered())
		}
	})
}
