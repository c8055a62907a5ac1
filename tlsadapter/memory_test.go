package tlsadapter_test

import (
	"crypto/tls"
	"runtime"
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
	t.Run("a message without an end", func(t *testing.T) {
		peer, server := newRawPeer(t)
		const length = 256 << 10 // as much as crypto/tls keeps
		server.receive(peer.out.seal(typeHandshake, "\x0b\x04\x00\x00"))
		sent := 0
		for ; server.err == nil && sent < length; sent += 3000 {
			server.receive(peer.out.seal(typeHandshake, string(make([]byte, 3000))))
		}
		require.ErrorIs(t, server.err, tlsadapter.ErrUseless)
		require.Less(t, sent, 64<<10)
	})
	t.Run("key updates", func(t *testing.T) {
		peer, server := newRawPeer(t)
		updates := 0
		for ; server.err == nil && updates < 10_000; updates += 15 {
			for range 15 { // crypto/tls itself allows 16 without data between them
				server.receive(peer.out.seal(typeHandshake, "\x18\x00\x00\x01\x01"))
				peer.out.update()
			}
			server.receive(peer.out.seal(typeApplication, "x"))
		}
		require.ErrorIs(t, server.err, tlsadapter.ErrUseless)
		require.Less(t, updates, 3000)
	})
	t.Run("a key update now and then", func(t *testing.T) {
		peer, server := newRawPeer(t)
		for range 5000 {
			server.receive(peer.out.seal(typeHandshake, "\x18\x00\x00\x01\x00"))
			peer.out.update()
			server.receive(peer.out.seal(typeApplication, "x"))
		}
		require.NoError(t, server.err)
	})
	t.Run("the smallest and the largest records", func(t *testing.T) {
		peer, server := newRawPeer(t)
		for range 5000 {
			server.receive(peer.out.seal(typeApplication, "x"))
		}
		large := peer.out.seal(typeApplication, string(make([]byte, 16<<10)))
		for len(large) > 0 { // in pieces
			n := min(len(large), 100)
			server.receive(large[:n])
			large = large[n:]
		}
		require.NoError(t, server.err)
	})
}
