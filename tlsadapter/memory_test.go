package tlsadapter_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

// TestIdleSessionMemory measures what a server's session holds when nothing happens on it: the Session, the tls.Conn
// and all that they refer to, after the client is gone. The limits leave some room for other versions of Go; the
// numbers of this one are in the package documentation.
func TestIdleSessionMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("-race makes objects larger")
	}
	const sessions = 2000
	for _, tc := range []struct {
		name   string
		client func(*tls.Config)
		packet int // echoed once, 0: none
		limit  int // bytes per session
	}{
		{name: "tls13", limit: 5800},
		{name: "tls13/packet=400", packet: 400, limit: 5800},
		{name: "tls13/packet=65535", packet: 65535, limit: 9500},
		{name: "tls13/curve=x25519", client: func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, limit: 4500},
		{name: "tls12", client: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, limit: 7400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, server := clientConfig(), serverConfig()
			if tc.client != nil {
				tc.client(client)
			}
			connect := func() *tlsadapter.Session {
				c, s := establish(t, client, server)
				if tc.packet > 0 {
					require.NoError(t, c.Seal(make([]byte, tc.packet)))
					carry(c, s, whole)
					require.NoError(t, s.Seal(s.got.Bytes()))
					carry(c, s, whole)
					require.Equal(t, tc.packet, c.got.Len())
				}
				return s.Session
			}
			connect() // what all sessions share
			kept := make([]*tlsadapter.Session, 0, sessions)
			before := liveBytes()
			for range sessions {
				kept = append(kept, connect())
			}
			each := (liveBytes() - before) / sessions
			t.Logf("%d bytes per idle session", each)
			require.Less(t, each, tc.limit)
			runtime.KeepAlive(kept)
		})
	}
}

// TestHalfOpenSessionMemory measures what a peer can have a handshake of a server hold: the longest message that crypto/tls takes, but for
// its last byte, in pieces that make its buffer double once more. Certificate messages may be longer than others, also where nobody asked
// for one.
func TestHalfOpenSessionMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("-race makes objects larger")
	}
	const sessions = 50
	client, server := clientConfig(), serverConfig()
	client.MaxVersion = tls.VersionTLS12 // whose Certificate is not encrypted
	for _, tc := range []struct {
		name   string
		typ    byte
		length int
		hello  bool // before it
		limit  int  // bytes per session
	}{
		{"ClientHello", 1, 64 << 10, false, 160_000},
		{"Certificate", 11, 256 << 10, true, 600_000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begin := func() *end {
				c, s := newPair(client, server)
				if tc.hello {
					c.receive(nil)
					c.carryTo(s, whole)
					c.Abort()
				}
				message := make([]byte, 4+tc.length)
				binary.BigEndian.PutUint32(message, uint32(tc.length))
				message[0] = tc.typ
				for rest := range slices.Chunk(message[:len(message)-1], 16<<10) {
					s.receive(binary.BigEndian.AppendUint16([]byte{typeHandshake, 3, 3}, uint16(len(rest))))
					s.receive(rest)
				}
				require.NoError(t, s.err)
				require.Equal(t, tlsadapter.StateHandshaking, s.State())
				return s
			}
			begin().Abort() // what all sessions share
			var kept []*end
			before := liveBytes()
			for range sessions {
				kept = append(kept, begin())
			}
			each := (liveBytes() - before) / sessions
			t.Logf("%d bytes per half-open session", each)
			require.Less(t, each, tc.limit)
			for _, s := range kept {
				s.Abort()
			}
		})
	}
}

// liveBytes returns the bytes of heap objects and of stacks that are in use.
func liveBytes() int {
	for range 3 { // a sync.Pool keeps what it has over one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// TestPeerWithoutData: what is no data is bounded, in the memory that it takes and in what it costs.
func TestPeerWithoutData(t *testing.T) {
	const keyUpdate = "\x18\x00\x00\x01\x00"
	// 16 without data between them are all that crypto/tls itself allows.
	for _, tc := range []struct {
		name             string
		records          int // without data, in a row
		typ              byte
		payload, between string
		most             int // records
	}{
		{"key updates", 15, typeHandshake, keyUpdate, "x", 60},
		{"a key update for each byte", 1, typeHandshake, keyUpdate, "x", 60},
		{"a key update for each half KiB", 1, typeHandshake, keyUpdate, strings.Repeat("x", 512), 110},
		{"empty records", 15, typeApplication, "", "x", 60},
	} {
		t.Run(tc.name, func(t *testing.T) {
			peer, server := newRawPeer(t)
			sent := 0
			for ; server.err == nil && sent < 10_000; sent += tc.records {
				var wire []byte
				for range tc.records {
					wire = append(wire, peer.out.seal(tc.typ, tc.payload)...)
					if tc.payload == keyUpdate {
						peer.out.update()
					}
				}
				server.receive(append(wire, peer.out.seal(typeApplication, tc.between)...))
			}
			require.ErrorIs(t, server.err, tlsadapter.ErrUseless)
			require.LessOrEqual(t, sent, tc.most)
		})
	}
	t.Run("a message without an end", func(t *testing.T) {
		for _, piece := range []int{1, 3000, 16 << 10} {
			peer, server := newRawPeer(t)
			const length = 256 << 10 // as much as crypto/tls keeps
			server.receive(peer.out.seal(typeHandshake, "\x0b\x04\x00\x00"))
			sent := 0
			for ; server.err == nil && sent < length; sent += piece {
				server.receive(peer.out.seal(typeHandshake, string(make([]byte, piece))))
			}
			require.ErrorIs(t, server.err, tlsadapter.ErrUseless)
			require.LessOrEqual(t, sent, 48<<10)
		}
	})
}

// TestPeerWithData: what comes with data is not held against it.
func TestPeerWithData(t *testing.T) {
	const keyUpdate = "\x18\x00\x00\x01\x00"
	t.Run("a key update for each KiB", func(t *testing.T) {
		peer, server := newRawPeer(t)
		for range 5000 {
			server.receive(peer.out.seal(typeHandshake, keyUpdate))
			peer.out.update()
			server.receive(peer.out.seal(typeApplication, strings.Repeat("x", 1<<10)))
		}
		require.NoError(t, server.err)
	})
	t.Run("records of one byte", func(t *testing.T) {
		peer, server := newRawPeer(t)
		for range 5000 {
			server.receive(peer.out.seal(typeApplication, "x"))
		}
		require.NoError(t, server.err)
	})
	for _, length := range []int{256, 1 << 10, 16 << 10} {
		t.Run(fmt.Sprintf("padding to %d bytes", length), func(t *testing.T) {
			peer, server := newRawPeer(t)
			for range 500 {
				server.receive(peer.out.sealPadded(typeApplication, "x", length-1))
			}
			require.NoError(t, server.err)
			require.Equal(t, 500, server.got.Len())
		})
	}
	t.Run("the largest record, in pieces, behind many key updates", func(t *testing.T) {
		peer, server := newRawPeer(t)
		for range 3 {
			for range 15 {
				server.receive(peer.out.seal(typeHandshake, keyUpdate))
				peer.out.update()
			}
			server.receive(peer.out.seal(typeApplication, "x"))
		}
		large := peer.out.seal(typeApplication, string(make([]byte, 16<<10)))
		for len(large) > 0 {
			n := min(len(large), 100)
			server.receive(large[:n])
			large = large[n:]
		}
		require.NoError(t, server.err)
		require.Equal(t, 3+16<<10, server.got.Len())
	})
}
