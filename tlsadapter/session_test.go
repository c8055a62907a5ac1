package tlsadapter_test

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

// versions are what every test of a whole session runs on. "gridmate" is the only thing that GridMate's driver speaks.
var versions = []struct {
	name  string
	limit func(*tls.Config)
	want  uint16
}{
	{"tls13", func(*tls.Config) {}, tls.VersionTLS13},
	{"tls12", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, tls.VersionTLS12},
	{"gridmate", func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS12
		c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}
	}, tls.VersionTLS12},
}

// bothCertificates lets a server be chosen by ECDHE-RSA and ECDHE-ECDSA.
func bothCertificates() *tls.Config {
	cfg := serverConfig()
	cfg.Certificates = []tls.Certificate{pki().ecdsa, pki().rsa}
	return cfg
}

func TestSessionsTalkWhateverTheFragmentation(t *testing.T) {
	for _, v := range versions {
		for _, f := range []struct {
			name string
			cut  cut
		}{
			{"whole", whole}, {"single", single}, {"random1", random(1)}, {"random2", random(2)}, {"random3", random(3)},
		} {
			t.Run(v.name+"/"+f.name, func(t *testing.T) {
				client := clientConfig()
				v.limit(client)
				c, s := newPair(client, bothCertificates())
				carry(c, s, f.cut)
				require.NoError(t, c.err)
				require.NoError(t, s.err)
				require.Equal(t, v.want, s.ConnectionState().Version)
				require.True(t, c.ConnectionState().HandshakeComplete)

				for _, size := range []int{1, 100, 3000, 3001, 70_000} {
					text := strings.Repeat("x", size-1) + "!"
					c.got.Reset()
					s.got.Reset()
					require.NoError(t, c.Seal([]byte(text)))
					require.NoError(t, s.Seal([]byte(text)))
					carry(c, s, f.cut)
					require.Equal(t, text, s.got.String())
					require.Equal(t, text, c.got.String())
				}
			})
		}
	}
}

// run runs a session on a socket, on the calling goroutine, until the peer closes or something fails.
// established may seal the first packets, deliver the answers.
func run(s *tlsadapter.Session, nc net.Conn, established func(), deliver func(plain []byte)) error {
	defer nc.Close()
	flush := func() { nc.Write(s.TakeOutput(nil)) }
	var buf [700]byte
	for read := buf[:0]; ; {
		if s.State() == tlsadapter.StateHandshaking {
			var done bool
			var err error
			if s.Feed(read) {
				done, err = s.Step()
			}
			if done {
				established()
				err = s.Open(nil, deliver)
			}
			flush()
			if err != nil {
				return err
			}
		} else {
			err := s.Open(read, deliver)
			if err == io.EOF {
				s.CloseNotify()
			}
			flush()
			if err != nil {
				return err
			}
		}
		n, err := nc.Read(buf[:])
		if err != nil {
			return s.CloseRead()
		}
		read = buf[:n]
	}
}

func TestServerSessionServesTLSConn(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			a, b := newPipe(t)
			s := tlsadapter.NewServer(bothCertificates())
			served := make(chan error, 1)
			go func() { served <- run(s, b, func() {}, func(plain []byte) { s.Seal(plain) }) }()

			client := clientConfig()
			v.limit(client)
			c := tls.Client(a, client)
			requireEcho(t, c)
			require.Equal(t, v.want, c.ConnectionState().Version)
			require.NoError(t, c.CloseWrite())
			_, err := c.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err, "close_notify in return")
			require.Equal(t, io.EOF, <-served)
			require.Equal(t, tlsadapter.StateClosed, s.State())
		})
	}
}

func TestClientSessionTalksToTLSConn(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			a, b := newPipe(t)
			server := bothCertificates()
			v.limit(server)
			conn := tls.Server(b, server)
			echoed := make(chan error, 1)
			go func() {
				_, err := io.CopyN(conn, conn, 5)
				conn.Close()
				echoed <- err
			}()

			c := tlsadapter.NewClient(clientConfig())
			var got []byte
			err := run(c, a,
				func() { require.NoError(t, c.Seal([]byte("hello"))) },
				func(plain []byte) { got = append(got, plain...) })
			require.Equal(t, io.EOF, err)
			require.Equal(t, "hello", string(got))
			require.NoError(t, <-echoed)
		})
	}
}

// requireEcho sends 100 kB and reads them back.
func requireEcho(t testing.TB, c net.Conn) {
	t.Helper()
	text := make([]byte, 100_000)
	for i := range text {
		text[i] = byte(rand.Int())
	}
	got := make([]byte, len(text))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(text)
		sent <- err
	}()
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.Equal(t, text, got)
}

func TestSessionResumption(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client, server := clientConfig(), bothCertificates()
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			v.limit(client)
			c, s := establish(t, client, server)
			require.False(t, c.ConnectionState().DidResume)
			require.False(t, s.ConnectionState().DidResume)

			c, s = establish(t, client, server)
			require.True(t, c.ConnectionState().DidResume)
			require.True(t, s.ConnectionState().DidResume)
			require.NoError(t, s.Seal([]byte("resumed")))
			carry(c, s, whole)
			require.Equal(t, "resumed", c.got.String())
		})
	}
}

func TestSessionNegotiatesNameProtocolAndClientCertificate(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client, server := clientConfig(), bothCertificates()
			v.limit(client)
			client.ServerName = "game.example"
			client.NextProtos = []string{"grid/2", "grid/1"}
			client.Certificates = []tls.Certificate{pki().ecdsa}
			server.NextProtos = []string{"grid/1"}
			server.ClientAuth = tls.RequireAndVerifyClientCert
			c, s := establish(t, client, server)
			require.Equal(t, "game.example", s.ConnectionState().ServerName)
			require.Equal(t, "grid/1", s.ConnectionState().NegotiatedProtocol)
			require.Equal(t, "grid/1", c.ConnectionState().NegotiatedProtocol)
			require.Equal(t, "localhost", s.ConnectionState().PeerCertificates[0].Subject.CommonName)
			require.Len(t, s.ConnectionState().VerifiedChains, 1)
		})
	}
}

func TestSessionCallbacksSeeAddresses(t *testing.T) {
	for _, tc := range []struct {
		name          string
		set           bool
		local, remote string
	}{
		{"set", true, "local", "remote"},
		{"unset", false, "tlsadapter", "tlsadapter"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := serverConfig()
			var local, remote string
			server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				local, remote = hello.Conn.LocalAddr().String(), hello.Conn.RemoteAddr().String()
				return nil, nil
			}
			c, s := newPair(clientConfig(), server)
			if tc.set {
				s.SetAddrs(pipeAddr("local"), pipeAddr("remote"))
			}
			carry(c, s, whole)
			require.NoError(t, s.err)
			require.Equal(t, tc.local, local)
			require.Equal(t, tc.remote, remote)
		})
	}
}

func TestSessionTakesKeyUpdatesInPieces(t *testing.T) {
	const (
		keyUpdate        = "\x18\x00\x00\x01\x00"
		keyUpdateRequest = "\x18\x00\x00\x01\x01"
	)
	for _, f := range []struct {
		name string
		cut  cut
	}{{"whole", whole}, {"single", single}, {"random", random(4)}} {
		t.Run(f.name, func(t *testing.T) {
			peer, s := newRawPeer(t)
			send := func(record []byte) {
				for len(record) > 0 {
					n := f.cut(len(record))
					s.receive(record[:n])
					record = record[n:]
				}
			}
			send(peer.out.seal(typeApplication, "one "))

			// A request in two records: answered with an update, under the old key, before anything else.
			send(peer.out.seal(typeHandshake, keyUpdateRequest[:3]))
			require.Zero(t, s.OutputLen())
			send(peer.out.seal(typeHandshake, keyUpdateRequest[3:]))
			peer.out.update()
			typ, message, rest := peer.in.open(t, s.TakeOutput(nil))
			require.Empty(t, rest)
			require.Equal(t, byte(typeHandshake), typ)
			require.Equal(t, keyUpdate, message)
			peer.in.update()

			// One without a request: not answered.
			send(peer.out.seal(typeApplication, "two "))
			send(peer.out.seal(typeHandshake, keyUpdate))
			peer.out.update()
			send(peer.out.seal(typeApplication, "three"))
			require.Zero(t, s.OutputLen())

			require.NoError(t, s.err)
			require.Equal(t, "one two three", s.got.String())
			require.NoError(t, s.Seal([]byte("answer")))
			typ, message, _ = peer.in.open(t, s.TakeOutput(nil))
			require.Equal(t, byte(typeApplication), typ)
			require.Equal(t, "answer", message)
		})
	}
}

func TestSessionRefusesStrangePostHandshakeMessageForGood(t *testing.T) {
	peer, s := newRawPeer(t)
	s.receive(peer.out.seal(typeHandshake, "\x0b\x00\x00\x04\x00\x00\x00\x00")) // Certificate
	require.ErrorContains(t, s.err, "unexpected handshake message")
	require.Equal(t, tlsadapter.StateFailed, s.State())
	require.Equal(t, s.err, s.Open(peer.out.seal(typeApplication, "more"), nil))
	require.Equal(t, s.err, s.Seal([]byte("more")))
	typ, alert, _ := peer.in.open(t, s.TakeOutput(nil))
	require.Equal(t, byte(typeAlert), typ)
	require.Equal(t, "\x02\x0a", alert, "fatal unexpected_message")
}

func TestSessionDeliverMaySeal(t *testing.T) {
	c, s := establish(t, clientConfig(), serverConfig())
	require.NoError(t, c.Seal([]byte("ping")))
	require.NoError(t, s.Open(c.TakeOutput(nil), func(plain []byte) { require.NoError(t, s.Seal(plain)) }))
	s.carryTo(c, whole)
	require.Equal(t, "ping", c.got.String())
}

func TestSessionOpensAndSealsConcurrently(t *testing.T) {
	c, s := establish(t, clientConfig(), serverConfig())
	const packets = 2000
	ends := [2]*end{c, s}
	wires := [2]chan []byte{make(chan []byte, 8), make(chan []byte, 8)}
	var wg sync.WaitGroup
	for i, e := range ends {
		out, in := wires[i], wires[1-i]
		wg.Go(func() { // the writer
			defer close(out)
			for range packets {
				if err := e.Seal([]byte("packet")); err != nil {
					t.Error(err)
				}
				out <- e.TakeOutput(nil)
			}
		})
		wg.Go(func() { // the reader
			for wire := range in {
				if err := e.Open(wire, func(plain []byte) { e.got.Write(plain) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range ends {
		require.Equal(t, strings.Repeat("packet", packets), e.got.String())
	}
}

func TestSessionSmallPacketsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under -race")
	}
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client := clientConfig()
			v.limit(client)
			c, s := establish(t, client, bothCertificates())
			packet := make([]byte, 64)
			var wire []byte
			seal := func() {
				if err := c.Seal(packet); err != nil {
					t.Fatal(err)
				}
				wire = c.TakeOutput(wire[:0])
			}
			both := testing.AllocsPerRun(1000, func() {
				seal()
				if err := s.Open(wire, func([]byte) {}); err != nil {
					t.Fatal(err)
				}
			})
			sealed := testing.AllocsPerRun(1000, seal)
			require.Zero(t, sealed)
			// crypto/tls allocates a 24-byte reader whenever it asks for input. It gets a whole record at once, so that it
			// asks once for each.
			require.EqualValues(t, 1, both-sealed)
		})
	}
}
