package tlsadapter_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

func TestCloseNotifyEndsOneDirection(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client := clientConfig()
			v.limit(client)
			c, s := establish(t, client, bothCertificates())
			require.NoError(t, c.Seal([]byte("last words")))
			require.NoError(t, c.CloseNotify())
			require.NoError(t, c.CloseNotify(), "idempotent")
			require.Equal(t, tlsadapter.StateClosing, c.State())
			require.ErrorIs(t, c.Seal([]byte("more")), tlsadapter.ErrWriteClosed)
			c.carryTo(s, single)
			require.Equal(t, "last words", s.got.String())
			require.Equal(t, io.EOF, s.err)
			require.Equal(t, tlsadapter.StatePeerClosed, s.State())
			require.NoError(t, s.CloseRead())

			require.NoError(t, s.Seal([]byte("answer")), "the other direction goes on")
			require.NoError(t, s.CloseNotify())
			require.Equal(t, tlsadapter.StateClosed, s.State())
			s.carryTo(c, whole)
			require.Equal(t, "answer", c.got.String())
			require.Equal(t, io.EOF, c.err)
			require.Equal(t, tlsadapter.StateClosed, c.State())
			require.NoError(t, c.CloseRead())
			require.Equal(t, io.EOF, c.Open([]byte("ignored"), nil))
			_, err := c.Detach(nil)
			require.ErrorIs(t, err, tlsadapter.ErrWriteClosed)
		})
	}
}

func TestStreamCutIsAnError(t *testing.T) {
	for _, tc := range []struct {
		name string
		wire func(record []byte) []byte
	}{
		{"at a record's end", func(record []byte) []byte { return record }},
		{"within a record", func(record []byte) []byte { return record[:len(record)-1] }},
		{"within a header", func(record []byte) []byte { return record[:3] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, s := establish(t, clientConfig(), serverConfig())
			require.NoError(t, c.Seal([]byte("x")))
			s.receive(tc.wire(c.TakeOutput(nil)))
			require.NoError(t, s.err)
			require.ErrorIs(t, s.CloseRead(), tlsadapter.ErrTruncated)
			require.ErrorIs(t, s.CloseRead(), io.ErrUnexpectedEOF)
			require.Equal(t, tlsadapter.StateFailed, s.State())
			require.ErrorIs(t, s.Open(nil, nil), tlsadapter.ErrTruncated)
			require.ErrorIs(t, s.Seal([]byte("x")), tlsadapter.ErrTruncated)
		})
	}
}

func TestDamagedRecordFailsBothSides(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client := clientConfig()
			v.limit(client)
			c, s := establish(t, client, bothCertificates())
			require.NoError(t, c.Seal([]byte("good")))
			require.NoError(t, c.Seal([]byte("bad")))
			wire := c.TakeOutput(nil)
			wire[len(wire)-1] ^= 1
			s.receive(wire)
			require.Equal(t, "good", s.got.String(), "what came before is delivered")
			require.ErrorContains(t, s.err, "bad record MAC")
			s.carryTo(c, whole)
			var peer *tlsadapter.PeerError
			require.ErrorAs(t, c.err, &peer)
			require.EqualValues(t, 20, peer.Alert)
		})
	}
}

func TestAbortWithinDeliverEndsOpen(t *testing.T) {
	c, s := establish(t, clientConfig(), serverConfig())
	require.NoError(t, c.Seal([]byte("one")))
	require.NoError(t, c.Seal([]byte("two")))
	err := s.Open(c.TakeOutput(nil), func(plain []byte) {
		s.got.Write(plain)
		s.Abort()
	})
	require.ErrorIs(t, err, tlsadapter.ErrAborted)
	require.Equal(t, "one", s.got.String())
}

// TestDetachGoesOnWhereTheSessionWas detaches a server's session on a pipe, with something in every place that bytes
// can be in, and reads and writes it as the tls.Conn that it has become.
func TestDetachGoesOnWhereTheSessionWas(t *testing.T) {
	for _, v := range versions {
		for _, where := range []string{"between calls", "within deliver", "before the first Open"} {
			t.Run(v.name+"/"+where, func(t *testing.T) {
				client := clientConfig()
				v.limit(client)
				c, s := establish(t, client, bothCertificates())
				near, far := newPipe(t)

				// Three packets: one opened by the session, one given to it in part, the rest on the socket.
				var wire []byte
				for _, packet := range []string{"one ", "two ", "three"} {
					require.NoError(t, c.Seal([]byte(packet)))
					wire = c.TakeOutput(wire)
				}
				given := wire[:len(wire)-7]
				must(far.Write(wire[len(given):]))
				require.NoError(t, s.Seal([]byte("pending ")))

				var conn *tls.Conn
				want := "one two three"
				switch where {
				case "between calls":
					require.NoError(t, s.Open(given, func(plain []byte) { s.got.Write(plain) }))
					conn = must(s.Detach(near))
				case "within deliver":
					err := s.Open(given, func(plain []byte) {
						s.got.Write(plain)
						conn = must(s.Detach(near))
					})
					require.ErrorIs(t, err, tlsadapter.ErrDetached)
					require.Equal(t, "one ", s.got.String())
				case "before the first Open":
					require.False(t, s.Feed(given))
					conn = must(s.Detach(near))
				}
				for buf := make([]byte, 3); s.got.Len() < len(want); {
					s.got.Write(buf[:must(conn.Read(buf))])
				}
				require.Equal(t, want, s.got.String())
				require.Equal(t, near.RemoteAddr(), conn.RemoteAddr())
				require.Equal(t, near.LocalAddr(), conn.LocalAddr())

				must(conn.Write([]byte("written")))
				require.NoError(t, conn.Close())
				c.receive(must(io.ReadAll(far)))
				require.Equal(t, "pending written", c.got.String())
				require.Equal(t, io.EOF, c.err)

				require.Equal(t, tlsadapter.StateDetached, s.State())
				require.ErrorIs(t, s.Open(nil, nil), tlsadapter.ErrDetached)
				require.ErrorIs(t, s.Seal(nil), tlsadapter.ErrDetached)
				s.Abort()
				require.Equal(t, tlsadapter.StateDetached, s.State(), "Abort comes too late")
			})
		}
	}
}

func TestDetachedConnHasDeadlines(t *testing.T) {
	_, s := establish(t, clientConfig(), serverConfig())
	near, _ := newPipe(t)
	conn := must(s.Detach(near))
	require.NoError(t, conn.SetDeadline(time.Now()))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	require.NoError(t, conn.SetWriteDeadline(time.Time{}))
}

func TestDetachReportsOutputThatCannotBeWritten(t *testing.T) {
	_, s := establish(t, clientConfig(), serverConfig())
	near, _ := newPipe(t)
	near.Close()
	require.NoError(t, s.Seal([]byte("pending")))
	_, err := s.Detach(near)
	require.ErrorIs(t, err, net.ErrClosed)
}
