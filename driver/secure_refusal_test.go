package driver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// requireHandshakeFailed is what a server makes of one handshake that failed.
func requireHandshakeFailed(t testing.TB, server driver.Driver, events *recorder) {
	t.Helper()
	eventually(t, "the failed handshake is counted", func() bool { return server.Stats().HandshakesFailed == 1 })
	established, disconnected := events.counts()
	require.Zero(t, established)
	require.Zero(t, disconnected)
	require.Zero(t, server.NumberOfConnections())
}

// handshakeLog collects why handshakes of accepted connections failed, from a server's Logger.
type handshakeLog struct {
	slog.Handler
	mu   sync.Mutex
	errs []error
}

func newHandshakeLog() *handshakeLog { return &handshakeLog{Handler: slog.DiscardHandler} }

func (l *handshakeLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *handshakeLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "driver: TLS handshake failed" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			l.errs = append(l.errs, err)
		}
		return true
	})
	return nil
}

// wait is the first.
func (l *handshakeLog) wait(t testing.TB) (err error) {
	t.Helper()
	eventually(t, "a handshake fails", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.errs) > 0 {
			err = l.errs[0]
		}
		return err != nil
	})
	return err
}

// expectation checks an error.
type expectation func(t testing.TB, err error)

// alert is the peer's.
func alert(want tls.AlertError) expectation {
	return func(t testing.TB, err error) {
		t.Helper()
		var got tls.AlertError
		require.ErrorAs(t, err, &got)
		require.Equal(t, want, got, err)
	}
}

func says(text string) expectation {
	return func(t testing.TB, err error) { t.Helper(); require.ErrorContains(t, err, text) }
}

// untrusted is a certificate that was not verified, because of T.
func untrusted[T error](t testing.TB, err error) {
	t.Helper()
	var verification *tls.CertificateVerificationError
	require.ErrorAs(t, err, &verification)
	var cause T
	require.ErrorAs(t, verification, &cause)
}

func expired(t testing.TB, err error) {
	t.Helper()
	untrusted[x509.CertificateInvalidError](t, err)
	var invalid x509.CertificateInvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, x509.Expired, invalid.Reason)
}

func notTLS(t testing.TB, err error) {
	t.Helper()
	var header tls.RecordHeaderError
	require.ErrorAs(t, err, &header)
}

// limitVersions is a TLSConfig.
func limitVersions(lowest, highest uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = lowest, highest }
}

// refusal is a handshake that must fail.
type refusal struct {
	name           string
	server, client driver.SecureDesc
	late           bool // the client is done before the server refuses

	// What each side has to say, on the driver and on crypto/tls, which has no type for the peer's alerts.
	serverErr, clientErr expectation
	stdServer, stdClient expectation
}

// identities are those of the refusals.
type identities struct{ authority, server, expired, client, stranger *identity }

func newIdentities(t testing.TB) (ids identities) {
	past := time.Now().Add(-time.Hour)
	ids.authority = newIdentity(t, template{name: "authority"})
	ids.server = newIdentity(t, template{name: "server", issuer: ids.authority, san: true, rsa: true})
	ids.expired = newIdentity(t, template{name: "server", issuer: ids.authority, san: true, rsa: true, notAfter: past})
	ids.client = newIdentity(t, template{name: "client", issuer: ids.authority, notAfter: past})
	ids.stranger = newIdentity(t, template{name: "stranger"})
	return ids
}

func refusals(ids identities) []refusal {
	serverOf := func(id *identity) driver.SecureDesc {
		return driver.SecureDesc{CertificatePEM: id.certPEM, PrivateKeyPEM: id.keyPEM, CertificateAuthorityPEM: ids.authority.certPEM}
	}
	mutual := serverOf(ids.server)
	mutual.AuthenticateClient = true
	client := driver.SecureDesc{CertificateAuthorityPEM: ids.authority.certPEM, ServerName: "server"}
	anyName := client
	anyName.ServerName = ""
	otherName := client
	otherName.ServerName = "other"
	stranger := client
	stranger.CertificateAuthorityPEM = ids.stranger.certPEM
	strangerAnyName := stranger
	strangerAnyName.ServerName = ""
	with := func(desc driver.SecureDesc, f func(*tls.Config)) driver.SecureDesc { desc.TLSConfig = f; return desc }
	as := func(desc driver.SecureDesc, id *identity) driver.SecureDesc {
		desc.CertificatePEM, desc.PrivateKeyPEM = id.certPEM, id.keyPEM
		return desc
	}
	tls12 := limitVersions(tls.VersionTLS12, tls.VersionTLS12)

	return []refusal{
		{
			name:   "TLS10Client",
			server: serverOf(ids.server), client: with(client, limitVersions(tls.VersionTLS10, tls.VersionTLS10)),
			serverErr: says("unsupported versions"), clientErr: alert(70),
			stdServer: says("unsupported versions"), stdClient: says("protocol version not supported"),
		}, {
			name:   "TLS11Client",
			server: serverOf(ids.server), client: with(client, limitVersions(tls.VersionTLS10, tls.VersionTLS11)),
			serverErr: says("unsupported versions"), clientErr: alert(70),
			stdServer: says("unsupported versions"), stdClient: says("protocol version not supported"),
		}, {
			name:   "TLS11Server",
			server: with(serverOf(ids.server), limitVersions(tls.VersionTLS10, tls.VersionTLS11)), client: client,
			serverErr: says("unsupported versions"), clientErr: alert(70),
			stdServer: says("unsupported versions"), stdClient: says("protocol version not supported"),
		}, {
			name:   "WrongAuthority",
			server: serverOf(ids.server), client: stranger,
			serverErr: alert(42), clientErr: untrusted[x509.UnknownAuthorityError],
			stdServer: says("bad certificate"), stdClient: untrusted[x509.UnknownAuthorityError],
		}, {
			name:   "WrongAuthorityTLS12",
			server: with(serverOf(ids.server), tls12), client: stranger,
			serverErr: alert(42), clientErr: untrusted[x509.UnknownAuthorityError],
			stdServer: says("bad certificate"), stdClient: untrusted[x509.UnknownAuthorityError],
		}, {
			name:   "WrongAuthorityAnyName",
			server: serverOf(ids.server), client: strangerAnyName,
			serverErr: alert(42), clientErr: untrusted[x509.UnknownAuthorityError],
			stdServer: says("bad certificate"),
		}, {
			name:   "Expired",
			server: serverOf(ids.expired), client: client,
			serverErr: alert(42), clientErr: expired,
			stdServer: says("bad certificate"), stdClient: expired,
		}, {
			name:   "ExpiredAnyName",
			server: serverOf(ids.expired), client: anyName,
			serverErr: alert(42), clientErr: expired,
			stdServer: says("bad certificate"),
		}, {
			name:   "WrongServerName",
			server: serverOf(ids.server), client: otherName,
			serverErr: alert(42), clientErr: untrusted[x509.HostnameError],
			stdServer: says("bad certificate"), stdClient: untrusted[x509.HostnameError],
		}, {
			name:   "NoClientCertificate",
			server: mutual, client: client, late: true,
			serverErr: says("didn't provide a certificate"), clientErr: alert(116),
			stdServer: says("didn't provide a certificate"), stdClient: says("certificate required"),
		}, {
			name:   "NoClientCertificateTLS12",
			server: with(mutual, tls12), client: client,
			serverErr: says("didn't provide a certificate"), clientErr: alert(40),
			stdServer: says("didn't provide a certificate"), stdClient: says("handshake failure"),
		}, {
			name:   "ClientOfAnotherAuthority",
			server: mutual, client: as(client, ids.stranger), late: true,
			// crypto/tls does not present a certificate that the server did not ask for.
			serverErr: says("didn't provide a certificate"), clientErr: alert(116),
			stdServer: says("didn't provide a certificate"), stdClient: says("certificate required"),
		}, {
			name:   "ExpiredClient",
			server: mutual, client: as(client, ids.client), late: true,
			serverErr: expired, clientErr: alert(45),
			stdServer: expired, stdClient: says("expired certificate"),
		}, {
			name:   "ExpiredClientTLS12",
			server: with(mutual, tls12), client: as(client, ids.client),
			serverErr: expired, clientErr: alert(45),
			stdServer: expired, stdClient: says("expired certificate"),
		},
	}
}

// standard is what crypto/tls alone makes of a description.
func standard(t testing.TB, d driver.SecureDesc) *tls.Config {
	t.Helper()
	c := &tls.Config{ServerName: d.ServerName, MinVersion: tls.VersionTLS12}
	if len(d.CertificatePEM) > 0 {
		pair, err := tls.X509KeyPair(d.CertificatePEM, d.PrivateKeyPEM)
		require.NoError(t, err)
		c.Certificates = []tls.Certificate{pair}
	}
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(d.CertificateAuthorityPEM))
	c.RootCAs, c.ClientCAs = pool, pool
	if d.AuthenticateClient {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if d.TLSConfig != nil {
		d.TLSConfig(c)
	}
	return c
}

// standardClient connects to addr with crypto/tls, and returns why that failed.
func standardClient(t testing.TB, addr netip.AddrPort, cfg *tls.Config) error {
	t.Helper()
	nc, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	c := tls.Client(nc, cfg)
	if err := c.Handshake(); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1)) // TLS 1.3: only here the client learns that it was refused
	return err
}

// standardServer serves one connection with crypto/tls; errs gets why that failed.
func standardServer(t testing.TB, cfg *tls.Config) (addr netip.AddrPort, errs <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(patience))
		err = tls.Server(nc, cfg).Handshake()
		_ = nc.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, nc) // so that no reset overtakes the alert
		done <- err
	}()
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().(*net.TCPAddr).AddrPort(), done
}

// requireRefused waits for the end of the client's only connection.
func requireRefused(t testing.TB, events *recorder, late bool, check expectation) {
	t.Helper()
	ev := events.waitDisconnected(t, 1)
	check(t, ev.Reason)
	established, disconnected := events.counts()
	require.Equal(t, 1, disconnected)
	if late {
		require.Equal(t, 1, established)
		require.Same(t, events.waitEstablished(t, 1).Conn, ev.Conn)
		require.ErrorIs(t, ev.Reason, driver.ErrReceive)
		return
	}
	require.Zero(t, established)
	require.Nil(t, ev.Conn)
	require.ErrorIs(t, ev.Reason, driver.ErrSocketConnect)
}

// requireServes has a client that the server does accept exchange a packet with it.
func requireServes(t testing.TB, server driver.Driver, events *recorder, client driver.SecureDesc) {
	t.Helper()
	d, _ := newSecureDriver(t, driver.Config{}, client)
	require.NoError(t, d.ConnectTo(addrOf(server)))
	c := events.waitEstablished(t, 1).Conn
	require.NoError(t, c.Send([]byte("welcome")))
	packet, _ := receive(t, d)
	require.Equal(t, "welcome", string(packet))
}

func TestSecureRefusals(t *testing.T) {
	ids := newIdentities(t)
	member := newIdentity(t, template{name: "member", issuer: ids.authority})
	for _, r := range refusals(ids) {
		t.Run(r.name, func(t *testing.T) {
			logged := newHandshakeLog()
			config := driver.Config{Logger: slog.New(logged)}
			good := driver.SecureDesc{
				CertificateAuthorityPEM: ids.authority.certPEM,
				CertificatePEM:          member.certPEM, PrivateKeyPEM: member.keyPEM,
			}
			usable := r.name != "TLS11Server" && r.name != "Expired" && r.name != "ExpiredAnyName"

			t.Run("Driver", func(t *testing.T) {
				server, serverEvents := newSecureServer(t, config, r.server)
				client, clientEvents := newSecureDriver(t, driver.Config{}, r.client)
				require.NoError(t, client.ConnectTo(addrOf(server)))
				requireRefused(t, clientEvents, r.late, r.clientErr)
				r.serverErr(t, logged.wait(t))
				requireHandshakeFailed(t, server, serverEvents)
				require.Equal(t, !r.late, client.Stats().ConnectsFailed == 1)
				require.Zero(t, client.Stats().HandshakesFailed)
				if usable {
					requireServes(t, server, serverEvents, good)
				}
			})
			if r.stdClient != nil {
				t.Run("StandardClient", func(t *testing.T) {
					logged := newHandshakeLog()
					server, events := newSecureServer(t, driver.Config{Logger: slog.New(logged)}, r.server)
					r.stdClient(t, standardClient(t, addrOf(server), standard(t, r.client)))
					r.serverErr(t, logged.wait(t))
					requireHandshakeFailed(t, server, events)
					if usable {
						requireServes(t, server, events, good)
					}
				})
			}
			t.Run("StandardServer", func(t *testing.T) {
				addr, errs := standardServer(t, standard(t, r.server))
				client, events := newSecureDriver(t, driver.Config{}, r.client)
				require.NoError(t, client.ConnectTo(addr))
				requireRefused(t, events, r.late, r.clientErr)
				r.stdServer(t, <-errs)
			})
		})
	}
}

func TestSecureRefusesOpenSSLClient(t *testing.T) {
	needOpenSSL3(t)
	ids := newIdentities(t)
	ca, _ := ids.authority.pair().files(t)
	strangerCert, strangerKey := ids.stranger.pair().files(t)
	member := newIdentity(t, template{name: "member", issuer: ids.authority})
	good := driver.SecureDesc{
		CertificateAuthorityPEM: ids.authority.certPEM,
		CertificatePEM:          member.certPEM, PrivateKeyPEM: member.keyPEM,
	}
	// With TLS 1.3 OpenSSL's client sends the alert of a certificate that it does not like unencrypted, which crypto/tls takes
	// for a damaged record.
	inTheClear := says("bad record MAC")
	for _, test := range []struct {
		name    string
		server  *identity // nil: ids.server
		mutual  bool
		args    []string
		openssl string
		driver  expectation
	}{
		{"TLS10", nil, false, []string{"-tls1", "-cipher", "ALL@SECLEVEL=0"}, "alert number 70", says("unsupported versions")},
		{"TLS11", nil, false, []string{"-tls1_1", "-cipher", "ALL@SECLEVEL=0"}, "alert number 70", says("unsupported versions")},
		{"WrongAuthority", nil, false, []string{"-CAfile", strangerCert}, "certificate verify failed", inTheClear},
		{"WrongAuthorityTLS12", nil, false, []string{"-CAfile", strangerCert, "-tls1_2"}, "certificate verify failed", alert(48)},
		{"Expired", ids.expired, false, []string{"-CAfile", ca}, "certificate has expired", inTheClear},
		{"ExpiredTLS12", ids.expired, false, []string{"-CAfile", ca, "-tls1_2"}, "certificate has expired", alert(45)},
		{"WrongName", nil, false, []string{"-CAfile", ca, "-verify_hostname", "other"}, "hostname mismatch", inTheClear},
		{"WrongNameTLS12", nil, false, []string{"-CAfile", ca, "-tls1_2", "-verify_hostname", "other"}, "hostname mismatch", alert(42)},
		{"NoCertificate", nil, true, []string{"-CAfile", ca}, "alert number 116", says("didn't provide a certificate")},
		{"NoCertificateTLS12", nil, true, []string{"-CAfile", ca, "-tls1_2"}, "alert number 40", says("didn't provide a certificate")},
		{
			"CertificateOfAnotherAuthority", nil, true,
			[]string{"-CAfile", ca, "-cert", strangerCert, "-key", strangerKey}, "alert number 48",
			untrusted[x509.UnknownAuthorityError],
		},
		{"NoCommonSuite", nil, false, []string{"-CAfile", ca, "-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384"}, "alert number 40", says("cipher suite")},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := ids.server
			if test.server != nil {
				id = test.server
			}
			logged := newHandshakeLog()
			server, events := newSecureServer(t, driver.Config{Logger: slog.New(logged)}, driver.SecureDesc{
				CertificatePEM: id.certPEM, PrivateKeyPEM: id.keyPEM,
				CertificateAuthorityPEM: ids.authority.certPEM, AuthenticateClient: test.mutual,
			})
			p := startClient(t, server, test.args...)
			log, err := p.wait(t)
			require.Error(t, err, log)
			require.Contains(t, log, test.openssl)
			test.driver(t, logged.wait(t))
			requireHandshakeFailed(t, server, events)
			if test.server == nil {
				requireServes(t, server, events, good)
			}
		})
	}
}

func TestSecureClientRefusedByOrRefusingOpenSSLServer(t *testing.T) {
	needOpenSSL3(t)
	ids := newIdentities(t)
	ca, _ := ids.authority.pair().files(t)
	client := driver.SecureDesc{CertificateAuthorityPEM: ids.authority.certPEM, ServerName: "server"}
	stranger := driver.SecureDesc{CertificateAuthorityPEM: ids.stranger.certPEM}
	other := driver.SecureDesc{CertificateAuthorityPEM: ids.authority.certPEM, ServerName: "other"}
	for _, test := range []struct {
		name    string
		server  *identity
		args    []string
		client  driver.SecureDesc
		late    bool
		driver  expectation
		openssl string
	}{
		{"TLS11", ids.server, []string{"-tls1_1", "-cipher", "ALL@SECLEVEL=0"}, client, false, alert(70), "unsupported protocol"},
		{"WrongAuthority", ids.server, nil, stranger, false, untrusted[x509.UnknownAuthorityError], "alert number 42"},
		{"Expired", ids.expired, nil, client, false, expired, "alert number 42"},
		{"WrongName", ids.server, nil, other, false, untrusted[x509.HostnameError], "alert number 42"},
		{"NoCertificate", ids.server, []string{"-Verify", "1", "-CAfile", ca, "-verify_return_error"}, client, true, alert(116), "did not return a certificate"},
		{"NoCertificateTLS12", ids.server, []string{"-Verify", "1", "-CAfile", ca, "-verify_return_error", "-tls1_2"}, client, false, alert(40), "did not return a certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cert, key := test.server.pair().files(t)
			p, addr := startServer(t, append(test.args, "-cert", cert, "-key", key, "-naccept", "2")...)
			d, events := newSecureDriver(t, driver.Config{}, test.client)
			require.NoError(t, d.ConnectTo(addr))
			requireRefused(t, events, test.late, test.driver)
			log, _ := p.wait(t)
			require.Contains(t, log, test.openssl)
		})
	}
}

func TestSecureClientNeedsAServerNameOrAnAuthority(t *testing.T) {
	client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{})
	err := client.ConnectTo(netip.MustParseAddrPort("127.0.0.1:1"))
	require.ErrorIs(t, err, driver.ErrSecureConfig)
	require.ErrorContains(t, err, "SecureDesc.ServerName")
	require.ErrorContains(t, err, "CertificateAuthorityPEM")
	_, disconnected := events.counts()
	require.Zero(t, disconnected, "an error that ConnectTo returned is no event")
}

func TestSecureClientWithoutAuthorityTrustsTheSystemOnly(t *testing.T) {
	server, _ := newSecureServer(t, driver.Config{}, developmentDesc())
	client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{ServerName: "development"})
	require.NoError(t, client.ConnectTo(addrOf(server)))
	requireRefused(t, events, false, func(t testing.TB, err error) {
		var verification *tls.CertificateVerificationError
		require.ErrorAs(t, err, &verification)
	})
}

func TestSecureServerRefusesPlaintext(t *testing.T) {
	for _, test := range []struct {
		name, hello string
		server      expectation
	}{
		{"Frame", "\x00\x05hello", notTLS},
		{"HTTP", "GET / HTTP/1.1\r\nHost: server\r\n\r\n", notTLS},
		{"Zeros", string(make([]byte, 4096)), notTLS},
		{"SSLv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x07\x00\xc0", says("SSLv2")},
		{"TooLarge", "\x16\x03\x01\xff\xff" + string(make([]byte, 4096)), says("oversized record")},
	} {
		t.Run(test.name, func(t *testing.T) {
			logged := newHandshakeLog()
			server, events := newSecureServer(t, driver.Config{Logger: slog.New(logged)}, developmentDesc())
			nc := dial(t, server)
			_, err := nc.Write([]byte(test.hello))
			require.NoError(t, err)
			require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
			answer, err := io.ReadAll(nc)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Less(t, len(answer), 8, "an alert, or nothing")
			require.NoError(t, nc.Close())
			test.server(t, logged.wait(t))
			requireHandshakeFailed(t, server, events)
			requireServes(t, server, events, developmentDesc())
		})
	}
}

func TestSecureServerRefusesAPlainDriver(t *testing.T) {
	logged := newHandshakeLog()
	server, events := newSecureServer(t, driver.Config{Logger: slog.New(logged)}, developmentDesc())
	client, clientEvents := newDriver(t, driver.Config{})
	require.NoError(t, client.ConnectTo(addrOf(server)))
	c := clientEvents.waitEstablished(t, 1).Conn // as far as TCP goes
	require.NoError(t, c.Send([]byte("hello")))
	clientEvents.waitDisconnected(t, 1)
	notTLS(t, logged.wait(t))
	requireHandshakeFailed(t, server, events)
	requireServes(t, server, events, developmentDesc())
}

func TestSecureClientRefusesAPlaintextServer(t *testing.T) {
	t.Run("HTTP", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		client, events := newSecureDriver(t, driver.Config{}, developmentDesc())
		require.NoError(t, client.ConnectTo(netip.MustParseAddrPort(server.Listener.Addr().String())))
		requireRefused(t, events, false, notTLS)
	})
	t.Run("DriverThatGreets", func(t *testing.T) {
		server, serverEvents := newServer(t, driver.Config{})
		server.Events().Subscribe(driver.SubscriberFuncs{Established: func(ev driver.Event) { _ = ev.Conn.Send([]byte("welcome")) }})
		client, events := newSecureDriver(t, driver.Config{}, developmentDesc())
		require.NoError(t, client.ConnectTo(addrOf(server)))
		requireRefused(t, events, false, notTLS)
		serverEvents.waitDisconnected(t, 1)
	})
	t.Run("DriverThatFindsAFrameTooLarge", func(t *testing.T) {
		server, serverEvents := newServer(t, driver.Config{MaxPacketSize: 1000}) // 0x1603, the ClientHello's beginning, is 5,635
		client, events := newSecureDriver(t, driver.Config{}, developmentDesc())
		require.NoError(t, client.ConnectTo(addrOf(server)))
		require.ErrorIs(t, serverEvents.waitDisconnected(t, 1).Reason, driver.ErrProtocol)
		requireRefused(t, events, false, func(t testing.TB, err error) {
			require.True(t, errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET), err)
		})
	})
	t.Run("DriverThatWaits", func(t *testing.T) {
		server, serverEvents := newServer(t, driver.Config{})
		client, events := newSecureDriver(t, driver.Config{HandshakeTimeout: 50 * time.Millisecond}, developmentDesc())
		require.NoError(t, client.ConnectTo(addrOf(server)))
		requireRefused(t, events, false, func(t testing.TB, err error) {
			require.ErrorIs(t, err, driver.ErrHandshakeTimeout)
		})
		serverEvents.waitDisconnected(t, 1)
	})
}
