package tlsadapter_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

// TestHandshakeRefusals has, for what either side may not like, the error that each side gets.
func TestHandshakeRefusals(t *testing.T) {
	verification := func(t *testing.T, err error) {
		var cause *tls.CertificateVerificationError
		require.ErrorAs(t, err, &cause)
	}
	saying := func(text string) func(*testing.T, error) {
		return func(t *testing.T, err error) { require.ErrorContains(t, err, text) }
	}
	peerAlert := func(want tls.AlertError, text string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			var peer *tlsadapter.PeerError
			require.ErrorAs(t, err, &peer)
			require.Equal(t, want, peer.Alert)
			var alert tls.AlertError
			require.ErrorAs(t, err, &alert)
			require.Equal(t, want, alert)
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.ErrorContains(t, err, text)
		}
	}
	old := func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }
	demand := func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }

	for _, tc := range []struct {
		name           string
		client, server func(*tls.Config)
		atClient       func(*testing.T, error)
		atServer       func(*testing.T, error)
	}{
		{
			name:     "client speaks TLS 1.1",
			client:   old,
			atClient: peerAlert(70, "does not support the protocol version"),
			atServer: saying("unsupported versions"),
		}, {
			name:     "server speaks TLS 1.1",
			server:   old,
			atClient: peerAlert(70, "does not support the protocol version"),
			atServer: saying("unsupported versions"),
		}, {
			name:     "no common cipher suite",
			client:   func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384} },
			server:   func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
			atClient: peerAlert(40, "no acceptable set of parameters"),
			atServer: saying("no cipher suite"),
		}, {
			name:     "server's certificate has expired",
			server:   func(c *tls.Config) { c.Certificates = []tls.Certificate{pki().expired} },
			atClient: verification,
			atServer: peerAlert(42, "rejected our certificate"),
		}, {
			name:     "server's authority is unknown",
			server:   func(c *tls.Config) { c.Certificates = []tls.Certificate{pki().fromOther} },
			atClient: verification,
			atServer: peerAlert(42, "rejected our certificate"),
		}, {
			name:     "server has another name",
			client:   func(c *tls.Config) { c.ServerName = "elsewhere.example" },
			atClient: func(t *testing.T, err error) { require.ErrorAs(t, err, new(x509.HostnameError)) },
			atServer: peerAlert(42, "rejected our certificate"),
		}, {
			name:     "client certificate is missing",
			server:   demand,
			atClient: peerAlert(116, "requires a client certificate and we presented none"),
			atServer: saying("client didn't provide a certificate"),
		}, {
			name:     "client certificate is missing, TLS 1.2",
			client:   func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
			server:   demand,
			atClient: peerAlert(40, "a client certificate that is missing"),
			atServer: saying("client didn't provide a certificate"),
		}, {
			name: "client's authority is unknown",
			client: func(c *tls.Config) {
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pki().fromOther, nil }
			},
			server:   demand,
			atClient: peerAlert(48, "does not know the authority"),
			atServer: verification,
		}, {
			name: "client's certificate has expired",
			client: func(c *tls.Config) {
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pki().expired, nil }
			},
			server:   demand,
			atClient: peerAlert(45, "expired"),
			atServer: verification,
		}, {
			name:     "no common application protocol",
			client:   func(c *tls.Config) { c.NextProtos = []string{"grid/2"} },
			server:   func(c *tls.Config) { c.NextProtos = []string{"grid/1"} },
			atClient: peerAlert(120, "application protocols"),
			atServer: saying("unsupported application protocols"),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, server := clientConfig(), serverConfig()
			if tc.client != nil {
				tc.client(client)
			}
			if tc.server != nil {
				tc.server(server)
			}
			c, s := newPair(client, server)
			carry(c, s, random(5))
			for _, e := range []struct {
				*end
				check func(*testing.T, error)
			}{{c, tc.atClient}, {s, tc.atServer}} {
				require.Error(t, e.err)
				e.check(t, e.err)
				require.Equal(t, tlsadapter.StateFailed, e.State())
				_, err := e.Step()
				require.Equal(t, e.err, err, "sticky")
				require.Equal(t, e.err, e.Open(nil, nil), "sticky")
				require.Equal(t, e.err, e.Seal([]byte("x")), "sticky")
				require.Zero(t, e.Buffered())
			}
		})
	}
}

func TestServerRefusesWhatIsNotTLS(t *testing.T) {
	for _, tc := range []struct{ name, input string }{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n"},
		{"GridMate's plain framing", "\x00\x05hello"},
		{"SSLv2", "\x80\x2e\x01\x03\x01\x00\x15"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tlsadapter.NewServer(serverConfig())
			require.True(t, s.Feed([]byte(tc.input)))
			_, err := s.Step()
			require.ErrorAs(t, err, new(tls.RecordHeaderError))
			require.Equal(t, tlsadapter.StateFailed, s.State())
		})
	}
}

func TestClientRefusesRenegotiation(t *testing.T) {
	client := clientConfig()
	client.Renegotiation = tls.RenegotiateOnceAsClient
	c := tlsadapter.NewClient(client)
	require.True(t, c.Feed(nil))
	_, err := c.Step()
	require.ErrorIs(t, err, tlsadapter.ErrRenegotiation)
}

func TestFeedAsksForAStepOnlyWhenThereIsOneToDo(t *testing.T) {
	c, s := newPair(clientConfig(), serverConfig())
	require.False(t, s.Feed(nil), "a server waits for the client")
	require.True(t, c.Feed(nil), "a client starts")
	require.False(t, c.Feed(nil), "once")
	done, err := c.Step()
	require.NoError(t, err)
	require.False(t, done)
	require.False(t, c.Feed(nil), "a client waits for the server")

	hello := c.TakeOutput(nil)
	for _, b := range hello[:len(hello)-1] {
		require.False(t, s.Feed([]byte{b}), "an incomplete record")
	}
	require.Equal(t, len(hello)-1, s.Buffered())
	require.True(t, s.Feed(hello[len(hello)-1:]))
	require.False(t, s.Feed([]byte{22}), "once until the Step")
	done, err = s.Step()
	require.NoError(t, err)
	require.False(t, done)
	require.Equal(t, 1, s.Buffered())
	require.NotZero(t, s.OutputLen())

	done, err = s.Step()
	require.NoError(t, err, "a Step without need is harmless")
	require.False(t, done)
	c.Abort()
	s.Abort()
}

func TestLightIsTheStepThatOnlyComparesFinished(t *testing.T) {
	noClient := func(*tls.Config) {}
	for _, tc := range []struct {
		name   string
		client func(*tls.Config)
		server func(*tls.Config)
		cut    cut
		light  []bool // of the server's steps, in order
	}{
		{"tls13", noClient, noClient, whole, []bool{false, true}},
		{"tls13/byte by byte", noClient, noClient, single, []bool{false, true, true}}, // ChangeCipherSpec, Finished
		{"tls13/second ClientHello", noClient, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP384} }, whole, []bool{false, false, true}},
		{"tls13/client certificate", noClient, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }, whole, []bool{false, false}},
		{"tls13/GetConfigForClient", noClient, func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
		}, whole, []bool{false, false}},
		{"tls12", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, noClient, whole, []bool{false, false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, server := clientConfig(), serverConfig()
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			tc.client(client)
			tc.server(server)
			for range 2 { // the second one resumes
				c, s := newPair(client, server)
				require.True(t, c.Feed(nil))
				require.False(t, c.Light(), "a client has certificates to verify")
				_, err := c.Step()
				require.NoError(t, err)
				var light []bool
				for s.State() == tlsadapter.StateHandshaking {
					wire := c.TakeOutput(nil)
					require.NotEmpty(t, wire)
					for n := 0; n < len(wire); {
						m := tc.cut(len(wire) - n)
						if s.Feed(wire[n : n+m]) {
							light = append(light, s.Light())
							_, err := s.Step()
							require.NoError(t, err)
						}
						n += m
					}
					s.carryTo(c, whole)
					require.NoError(t, c.err)
				}
				require.Equal(t, tc.light, light)
			}
		})
	}
}

func TestDataBehindTheHandshakeWaitsForOpen(t *testing.T) {
	c, s := newPair(clientConfig(), serverConfig())
	c.receive(nil)
	c.carryTo(s, whole)
	s.carryTo(c, whole)
	require.NoError(t, c.Seal([]byte("early")))
	require.True(t, s.Feed(c.TakeOutput(nil)), "Finished and the first packet in one segment")
	done, err := s.Step()
	require.NoError(t, err)
	require.True(t, done)
	require.NoError(t, c.Seal([]byte(" bird")))
	require.False(t, s.Feed(c.TakeOutput(nil)), "nothing to step any more")
	require.NotZero(t, s.Buffered())
	require.NoError(t, c.Seal([]byte(" song")))
	require.NoError(t, s.Open(c.TakeOutput(nil), func(plain []byte) { s.got.Write(plain) }))
	require.Equal(t, "early bird song", s.got.String())
	require.Zero(t, s.Buffered())
}

func TestSessionBeforeTheHandshake(t *testing.T) {
	c, s := newPair(clientConfig(), serverConfig())
	c.receive(nil)
	c.carryTo(s, whole) // both are suspended within crypto/tls, which holds its locks
	for _, e := range []*end{c, s} {
		require.Equal(t, tls.ConnectionState{}, e.ConnectionState())
		require.ErrorIs(t, e.Open(nil, nil), tlsadapter.ErrNotEstablished)
		require.ErrorIs(t, e.Seal(nil), tlsadapter.ErrNotEstablished)
		require.ErrorIs(t, e.CloseNotify(), tlsadapter.ErrNotEstablished)
		require.ErrorIs(t, e.CloseRead(), tlsadapter.ErrTruncated)
		_, err := e.Detach(nil)
		require.ErrorIs(t, err, tlsadapter.ErrNotEstablished)
		e.Abort()
	}
}

// TestAbortAtEveryPointLeaksNothing aborts either side after each number of bytes; goleak looks for what is left.
func TestAbortAtEveryPointLeaksNothing(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client := clientConfig()
			v.limit(client)
			c, s := newPair(client, bothCertificates())
			total := carry(c, s, whole)
			step := 97
			if raceEnabled {
				step = 397
			}
			for at := 0; at <= total; at += step {
				left := at
				c, s := newPair(client, bothCertificates())
				carry(c, s, func(n int) int {
					if left == 0 {
						c.Abort()
						s.Abort()
						return n
					}
					n = min(n, left)
					left -= n
					return n
				})
				c.Abort()
				s.Abort()
				for _, e := range []*end{c, s} {
					require.Equal(t, tlsadapter.StateAborted, e.State())
					require.Zero(t, e.Buffered())
					require.Zero(t, e.OutputLen())
					_, err := e.Step()
					require.ErrorIs(t, err, tlsadapter.ErrAborted)
					require.ErrorIs(t, err, net.ErrClosed)
					require.False(t, e.Feed([]byte("late")))
					require.ErrorIs(t, e.Open(nil, nil), tlsadapter.ErrAborted)
					require.ErrorIs(t, e.Seal(nil), tlsadapter.ErrAborted)
					require.ErrorIs(t, e.CloseRead(), tlsadapter.ErrAborted)
				}
			}
		})
	}
}

// TestAbortOnALockedGoroutine: the runtime ends the process where a coroutine is resumed on a goroutine that is locked to its thread, but
// was begun on one that is not.
func TestAbortOnALockedGoroutine(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			c, s := newPair(clientConfig(), serverConfig())
			c.receive(nil)
			c.carryTo(s, whole) // either has begun, and waits
			aborted := c
			if side == "server" {
				aborted = s
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				runtime.LockOSThread() // for good: the thread ends with it
				aborted.Abort()
			})
			wg.Wait()
			require.Equal(t, tlsadapter.StateAborted, aborted.State())
			c.Abort()
			s.Abort()
		})
	}
}

// brokenCache is told to forget the session of a handshake that ends.
type brokenCache struct{ tls.ClientSessionCache }

func (c brokenCache) Put(key string, session *tls.ClientSessionState) {
	if session == nil {
		panic("Put")
	}
	c.ClientSessionCache.Put(key, session)
}

func TestPanicInACallbackPassesThroughAbort(t *testing.T) {
	client, server := clientConfig(), serverConfig()
	client.ClientSessionCache = brokenCache{tls.NewLRUClientSessionCache(1)}
	establish(t, client, server)
	c, _ := newPair(client, server)
	c.receive(nil)
	require.PanicsWithValue(t, "Put", c.Abort)
}

// TestAbortDuringStepDoesNotWait aborts while a callback of the handshake, in place of a long computation, is under way.
func TestAbortDuringStepDoesNotWait(t *testing.T) {
	server := serverConfig()
	computing, finish := make(chan struct{}), make(chan struct{})
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		close(computing)
		<-finish
		return nil, nil
	}
	c, s := newPair(clientConfig(), server)
	c.receive(nil)
	require.True(t, s.Feed(c.TakeOutput(nil)))
	stepped := make(chan error)
	go func() {
		_, err := s.Step()
		stepped <- err
	}()
	<-computing
	done, err := s.Step()
	require.False(t, done, "another Step returns at once")
	require.NoError(t, err)
	s.Abort()
	require.Equal(t, tlsadapter.StateAborted, s.State())
	close(finish)
	require.ErrorIs(t, <-stepped, tlsadapter.ErrAborted)
	require.Zero(t, s.OutputLen(), "what the handshake still wrote is discarded")
	c.Abort()
}

func TestPanicInACallbackPassesThroughStep(t *testing.T) {
	server := serverConfig()
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("oops") }
	c, s := newPair(clientConfig(), server)
	c.receive(nil)
	require.True(t, s.Feed(c.TakeOutput(nil)))
	require.PanicsWithValue(t, "oops", func() { s.Step() })
	s.Abort()
	require.Equal(t, tlsadapter.StateAborted, s.State())
	c.Abort()
}

// TestStepsAndFeedsRace runs handshakes as drivers do: a loop that feeds byte by byte and workers that step, bound by
// nothing but what Feed returns.
func TestStepsAndFeedsRace(t *testing.T) {
	const sessions = 20
	jobs := make(chan func())
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for job := range jobs {
				job()
			}
		})
	}
	var loops sync.WaitGroup
	for range sessions {
		a, b := newPipe(t)
		loops.Go(func() { loopSide(t, tlsadapter.NewServer(serverConfig()), a, jobs) })
		loops.Go(func() { loopSide(t, tlsadapter.NewClient(clientConfig()), b, jobs) })
	}
	loops.Wait()
	close(jobs)
	workers.Wait()
}

// loopSide takes one session through its handshake and exchanges one message each way. Its loop gets bytes and the news
// that the session is established as a driver's loop does: as events.
func loopSide(t *testing.T, s *tlsadapter.Session, nc net.Conn, jobs chan<- func()) {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer nc.Close()
	bytes, established := make(chan []byte), make(chan struct{})
	helpers.Go(func() {
		defer close(bytes)
		for {
			buf := make([]byte, 1)
			if _, err := nc.Read(buf); err != nil {
				return
			}
			bytes <- buf
		}
	})
	step := func() {
		done, err := s.Step()
		if err != nil {
			t.Error(err)
		}
		if done {
			s.Seal([]byte("!"))
		}
		nc.Write(s.TakeOutput(nil))
		if done {
			close(established) // behind the write: the loop may end the stream at once
		}
	}
	feed := func(p []byte) {
		if s.Feed(p) {
			helpers.Go(func() { jobs <- step })
		}
	}
	feed(nil)
	open := false
	var got []byte
	for event, news := bytes, established; event != nil; {
		var read []byte
		select {
		case <-news:
			open, news = true, nil
		case p, ok := <-event:
			if read = p; !ok {
				event = nil
			}
		}
		if !open {
			feed(read)
			continue
		}
		if err := s.Open(read, func(plain []byte) { got = append(got, plain...) }); err != nil {
			t.Error(err)
		}
		if string(got) == "!" {
			got = append(got, '\n')
			nc.(pipeConn).CloseWrite() // ends the other side's stream, as this one ends when it has got ours
		}
	}
	require.Equal(t, "!\n", string(got))
}

func TestPeerErrorSaysWhatWasRejected(t *testing.T) {
	for _, tc := range []struct {
		alert tls.AlertError
		want  string
	}{
		{45, "tlsadapter: the peer rejected our certificate as expired or not yet valid (alert 45: tls: expired certificate)"},
		{121, "tlsadapter: the peer ended the session (alert 121: tls: encrypted client hello required)"},
		{200, "tlsadapter: the peer ended the session (alert 200: tls: alert(200))"},
	} {
		require.EqualError(t, &tlsadapter.PeerError{Alert: tc.alert, Err: io.EOF}, tc.want)
	}
}

func TestErrorsMatchTheirStandardKin(t *testing.T) {
	require.True(t, errors.Is(tlsadapter.ErrTruncated, io.ErrUnexpectedEOF))
	for _, err := range []error{tlsadapter.ErrAborted, tlsadapter.ErrDetached, tlsadapter.ErrWriteClosed} {
		require.True(t, errors.Is(err, net.ErrClosed))
	}
}
