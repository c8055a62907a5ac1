package driver_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// requireNoKey checks that nothing of a key is in a text.
func requireNoKey(t testing.TB, text string, keys ...[]byte) {
	t.Helper()
	for _, key := range keys {
		block, _ := pem.Decode(key)
		require.NotNil(t, block)
		for chunk := range bytes.SplitSeq(pem.EncodeToMemory(block), []byte("\n")) {
			if len(chunk) >= 16 && !bytes.HasPrefix(chunk, []byte("-----")) {
				require.NotContains(t, text, string(chunk))
			}
		}
		require.NotContains(t, text, string(block.Bytes[:16]))
		require.NotContains(t, text, fmt.Sprintf("%x", block.Bytes[:16]))
		require.NotContains(t, text, fmt.Sprint(block.Bytes[:16]))
	}
}

func TestSecureDescErrors(t *testing.T) {
	good := newIdentity(t, template{name: "good", rsa: true})
	other := newIdentity(t, template{name: "other", rsa: true})
	curve := newIdentity(t, template{name: "curve"})
	garbage := []byte("-----BEGIN NOTHING-----\n")
	badDER := pemOf("CERTIFICATE", []byte("not a certificate"))
	keyDER, err := x509.MarshalPKCS8PrivateKey(good.key)
	require.NoError(t, err)
	damaged := bytes.Replace(other.certPEM, []byte("\nMII"), []byte("\n*"), 1) // pem.Decode skips it
	require.NotEqual(t, other.certPEM, damaged)
	legacy := pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: keyDER,
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00112233445566778899AABBCCDDEEFF"},
	})

	for _, test := range []struct {
		name  string
		desc  driver.SecureDesc
		code  driver.ResultCode
		field string
		says  string
	}{
		{
			"CertificateNotPEM", driver.SecureDesc{CertificatePEM: garbage, PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "no certificate",
		}, {
			"CertificateBlank", driver.SecureDesc{CertificatePEM: []byte(" \n"), PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "no certificate",
		}, {
			"CertificateIsAKey", driver.SecureDesc{CertificatePEM: good.keyPEM, PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "no certificate",
		}, {
			"CertificateBroken", driver.SecureDesc{CertificatePEM: badDER, PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "x509: malformed certificate",
		}, {
			"IntermediateBroken", driver.SecureDesc{CertificatePEM: bytes.Join([][]byte{good.certPEM, badDER}, nil), PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "certificate 2: x509: malformed certificate",
		}, {
			"IntermediateDamaged", driver.SecureDesc{CertificatePEM: bytes.Join([][]byte{good.certPEM, damaged}, nil), PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "1 of 2 certificates are not in PEM form",
		}, {
			"KeyWithoutCertificate", driver.SecureDesc{PrivateKeyPEM: good.keyPEM},
			driver.ErrSecureCert, "CertificatePEM", "without",
		}, {
			"CertificateWithoutKey", driver.SecureDesc{CertificatePEM: good.certPEM},
			driver.ErrSecurePKey, "PrivateKeyPEM", "without",
		}, {
			"KeyNotPEM", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: garbage},
			driver.ErrSecurePKey, "PrivateKeyPEM", "no private key",
		}, {
			"KeyNotPEMButDER", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: keyDER},
			driver.ErrSecurePKey, "PrivateKeyPEM", "no private key",
		}, {
			"KeyIsACertificate", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: good.certPEM},
			driver.ErrSecurePKey, "PrivateKeyPEM", "no private key",
		}, {
			"KeyBroken", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: pemOf("PRIVATE KEY", keyDER[:len(keyDER)/2])},
			driver.ErrSecurePKey, "PrivateKeyPEM", "failed to parse private key",
		}, {
			"KeyOfAnother", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: other.keyPEM},
			driver.ErrSecurePKey, "PrivateKeyPEM", "does not match",
		}, {
			"KeyOfAnotherKind", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: curve.keyPEM},
			driver.ErrSecurePKey, "PrivateKeyPEM", "does not match",
		}, {
			"KeyEncrypted", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: pemOf("ENCRYPTED PRIVATE KEY", keyDER)},
			driver.ErrSecurePKey, "PrivateKeyPEM", "encrypted",
		}, {
			"KeyEncryptedAsOfOld", driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: legacy},
			driver.ErrSecurePKey, "PrivateKeyPEM", "encrypted",
		}, {
			"AuthorityNotPEM", driver.SecureDesc{CertificateAuthorityPEM: garbage},
			driver.ErrSecureCACert, "CertificateAuthorityPEM", "no certificate",
		}, {
			"AuthorityIsAKey", driver.SecureDesc{CertificateAuthorityPEM: good.keyPEM},
			driver.ErrSecureCACert, "CertificateAuthorityPEM", "no certificate",
		}, {
			"AuthorityBroken", driver.SecureDesc{CertificateAuthorityPEM: bytes.Join([][]byte{good.certPEM, badDER}, nil)},
			driver.ErrSecureCACert, "CertificateAuthorityPEM", "certificate 2: x509: malformed certificate",
		}, {
			"AuthorityDamaged", driver.SecureDesc{CertificateAuthorityPEM: bytes.Join([][]byte{damaged, good.certPEM}, nil)},
			driver.ErrSecureCACert, "CertificateAuthorityPEM", "1 of 2 certificates are not in PEM form",
		}, {
			"AuthenticateClientWithoutAuthority",
			driver.SecureDesc{CertificatePEM: good.certPEM, PrivateKeyPEM: good.keyPEM, AuthenticateClient: true},
			driver.ErrSecureCACert, "CertificateAuthorityPEM", "AuthenticateClient",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var logged bytes.Buffer
			d, err := driver.NewSecure(driver.Config{
				EventLoops: 1,
				Logger:     slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			require.NoError(t, err)
			defer d.Close()

			check := func(op string, err error) {
				t.Helper()
				require.ErrorIs(t, err, test.code)
				require.Equal(t, test.code, driver.CodeOf(err))
				require.ErrorContains(t, err, "driver: "+op+": ")
				require.ErrorContains(t, err, "SecureDesc.")
				require.ErrorContains(t, err, test.field)
				require.ErrorContains(t, err, test.says)
				var e *driver.Error
				require.ErrorAs(t, err, &e)
				require.Error(t, e.Err)
				requireNoKey(t, fmt.Sprintf("%v %+v %#v", err, err, err), good.keyPEM, other.keyPEM, curve.keyPEM)
			}
			check("InitializeSecurity", d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, test.desc))
			require.Zero(t, d.Port())
			require.ErrorIs(t, d.StartListen(0), driver.ErrNotInitialized)

			// It is not stuck.
			require.NoError(t, d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, good.pair().desc()))
			require.NoError(t, d.StartListen(0))
			check("ReloadSecurity", d.ReloadSecurity(test.desc))
			require.Equal(t, "good", nameSeen(t, d))
			require.NoError(t, d.Close())
			requireNoKey(t, logged.String(), good.keyPEM, other.keyPEM, curve.keyPEM)
		})
	}
}

// nameSeen is the name in the certificate that a new client of the server sees.
func nameSeen(t testing.TB, server driver.Driver) string {
	t.Helper()
	c, err := tls.Dial("tcp", addrOf(server).String(), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestSecureDescForms(t *testing.T) {
	id := newIdentity(t, template{name: "rsa", rsa: true})
	curve := newIdentity(t, template{name: "curve"})
	sec1, err := x509.MarshalECPrivateKey(curve.key.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	pkcs1 := x509.MarshalPKCS1PrivateKey(id.key.(*rsa.PrivateKey))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, pair := range map[string]pemPair{
		"PKCS8":               id.pair(),
		"PKCS1":               {cert: id.certPEM, key: pemOf("RSA PRIVATE KEY", pkcs1)},
		"SEC1WithParameters":  {cert: curve.certPEM, key: join(pemOf("EC PARAMETERS", []byte{6, 0}), pemOf("EC PRIVATE KEY", sec1))},
		"AllInOneFile":        {cert: join(id.keyPEM, id.certPEM), key: join(id.certPEM, id.keyPEM)},
		"TextAround":          {cert: join([]byte("Certificate:\n  Data:\n"), id.certPEM, []byte("bye\n")), key: join([]byte("key\n"), id.keyPEM)},
		"WindowsLineEndings":  {cert: bytes.ReplaceAll(id.certPEM, []byte("\n"), []byte("\r\n")), key: bytes.ReplaceAll(id.keyPEM, []byte("\n"), []byte("\r\n"))},
		"CertificateAndChain": {cert: join(id.certPEM, curve.certPEM), key: id.keyPEM},
	} {
		t.Run(name, func(t *testing.T) {
			server, events := newSecureServer(t, driver.Config{}, pair.desc())
			requireServes(t, server, events, pair.desc())
		})
	}
}

func TestSecureStreamNeedsInitializeSecurity(t *testing.T) {
	d, err := driver.NewSecure(driver.Config{EventLoops: 1})
	require.NoError(t, err)
	defer d.Close()
	err = d.Initialize(driver.Bind{Address: "127.0.0.1"})
	require.ErrorIs(t, err, driver.ErrSecureConfig)
	require.ErrorContains(t, err, "InitializeSecurity")
	require.Zero(t, d.Port())
	require.ErrorIs(t, d.StartListen(0), driver.ErrNotInitialized)
	require.ErrorIs(t, d.ConnectTo(addrOf(d)), driver.ErrNotInitialized)
	err = d.ReloadSecurity(developmentDesc())
	require.ErrorIs(t, err, driver.ErrNotInitialized)
	require.ErrorIs(t, err, driver.ErrSecureConfig)

	require.NoError(t, d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, developmentDesc()))
	require.NoError(t, d.StartListen(0))
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.ReloadSecurity(developmentDesc()), driver.ErrDriverClosed)
	require.ErrorIs(t, d.InitializeSecurity(driver.Bind{}, developmentDesc()), driver.ErrDriverClosed)
}

func TestSecureStreamWithoutCertificateDoesNotListen(t *testing.T) {
	d, _ := newSecureDriver(t, driver.Config{}, driver.SecureDesc{CertificateAuthorityPEM: development().certPEM})
	err := d.StartListen(0)
	require.ErrorIs(t, err, driver.ErrSecureCert)
	require.ErrorContains(t, err, "SecureDesc.CertificatePEM")
	require.False(t, d.IsListening())
	require.NoError(t, d.ReloadSecurity(developmentDesc()))
	require.NoError(t, d.StartListen(0))
	require.Equal(t, "development", nameSeen(t, d))
}

func TestInitializeSecurityThatFailedChangesNothing(t *testing.T) {
	first := newIdentity(t, template{name: "first"})
	second := newIdentity(t, template{name: "second"})
	d, err := driver.NewSecure(driver.Config{EventLoops: 1})
	require.NoError(t, err)
	defer d.Close()
	require.ErrorIs(t, d.InitializeSecurity(driver.Bind{Address: "not an address"}, first.pair().desc()), driver.ErrSocketBind)
	require.ErrorIs(t, d.ReloadSecurity(first.pair().desc()), driver.ErrNotInitialized)
	require.NoError(t, d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, second.pair().desc()))
	require.NoError(t, d.StartListen(0))
	require.Equal(t, "second", nameSeen(t, d))

	err = d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, first.pair().desc())
	require.ErrorIs(t, err, driver.ErrAlreadyInitialized)
	require.ErrorContains(t, err, "driver: InitializeSecurity")
	require.Equal(t, "second", nameSeen(t, d))
}

func TestSecureDescMayBeReused(t *testing.T) {
	id := newIdentity(t, template{name: "borrowed"})
	desc := driver.SecureDesc{
		CertificatePEM: bytes.Clone(id.certPEM), PrivateKeyPEM: bytes.Clone(id.keyPEM), CertificateAuthorityPEM: bytes.Clone(id.certPEM),
	}
	server, events := newSecureServer(t, driver.Config{}, desc)
	clear(desc.CertificatePEM)
	clear(desc.PrivateKeyPEM)
	clear(desc.CertificateAuthorityPEM)
	requireServes(t, server, events, id.pair().desc())
}

func TestReloadSecurityIsForNewHandshakes(t *testing.T) {
	authority := newIdentity(t, template{name: "authority"})
	describe := func(name string) driver.SecureDesc {
		id := newIdentity(t, template{name: name, issuer: authority})
		return driver.SecureDesc{CertificatePEM: id.certPEM, PrivateKeyPEM: id.keyPEM, CertificateAuthorityPEM: authority.certPEM}
	}
	first, second := describe("first"), describe("second")
	server, serverEvents := newSecureEcho(t, first)
	client, clientEvents := newSecureDriver(t, driver.Config{}, first)
	clientConn, _ := connect(t, client, server)
	name := func() string { return stateOf(t, clientConn).PeerCertificates[0].Subject.CommonName }
	echo := func() {
		t.Helper()
		require.NoError(t, clientConn.Send([]byte("still there?")))
		packet, _ := receive(t, client)
		require.Equal(t, "still there?", string(packet))
	}
	require.Equal(t, "first", name())

	require.NoError(t, server.ReloadSecurity(second))
	require.Equal(t, "second", nameSeen(t, server))
	echo()
	require.Equal(t, "first", name())

	bad := second
	bad.PrivateKeyPEM = first.PrivateKeyPEM
	require.ErrorIs(t, server.ReloadSecurity(bad), driver.ErrSecurePKey)
	require.Equal(t, "second", nameSeen(t, server))
	echo()

	_, disconnected := serverEvents.counts()
	require.LessOrEqual(t, disconnected, 2) // nameSeen's
	established, disconnected := clientEvents.counts()
	require.Equal(t, []int{1, 0}, []int{established, disconnected})
}

// What a client trusted before must not come back by resumption.
func TestReloadSecurityForgetsSessions(t *testing.T) {
	server, _ := newSecureEcho(t, developmentDesc())
	client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{
		CertificateAuthorityPEM: development().certPEM,
		TLSConfig:               limitVersions(tls.VersionTLS12, tls.VersionTLS12), // its tickets come within the handshake
	})
	for n := range 2 {
		clientConn, _ := connect(t, client, server)
		require.Equal(t, n == 1, stateOf(t, clientConn).DidResume)
		require.NoError(t, client.DisconnectFrom(addrOf(server)))
		events.waitDisconnected(t, n+1)
	}
	require.NoError(t, client.ReloadSecurity(driver.SecureDesc{
		CertificateAuthorityPEM: newIdentity(t, template{name: "stranger"}).certPEM,
	}))
	require.NoError(t, client.ConnectTo(addrOf(server)))
	untrusted[x509.UnknownAuthorityError](t, events.waitDisconnected(t, 3).Reason)
}

func TestTLSConfigHasTheLastWord(t *testing.T) {
	t.Run("CalledForBothSides", func(t *testing.T) {
		var servers, clients atomic.Int32
		desc := developmentDesc()
		desc.AuthenticateClient = true
		desc.ServerName = "development"
		desc.TLSConfig = func(c *tls.Config) {
			require.EqualValues(t, tls.VersionTLS12, c.MinVersion)
			require.Len(t, c.Certificates, 1)
			if c.ClientAuth == tls.RequireAndVerifyClientCert {
				servers.Add(1)
			}
			if c.ServerName == "development" && !c.InsecureSkipVerify {
				clients.Add(1)
			}
		}
		newSecureDriver(t, driver.Config{}, desc)
		require.EqualValues(t, 1, servers.Load())
		require.EqualValues(t, 1, clients.Load())
	})
	t.Run("Versions", func(t *testing.T) {
		desc := developmentDesc()
		desc.TLSConfig = limitVersions(tls.VersionTLS13, 0)
		server, events := newSecureServer(t, driver.Config{}, desc)
		err := standardClient(t, addrOf(server), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		require.ErrorContains(t, err, "protocol version not supported")
		requireServes(t, server, events, developmentDesc())
	})
	t.Run("OldVersions", func(t *testing.T) { // nothing is cut off behind its back
		desc := developmentDesc()
		desc.TLSConfig = limitVersions(tls.VersionTLS11, tls.VersionTLS11)
		server, events := newSecureServer(t, driver.Config{}, desc)
		requireServes(t, server, events, desc)
	})
	t.Run("GetCertificate", func(t *testing.T) {
		pair, err := tls.X509KeyPair(development().certPEM, development().keyPEM)
		require.NoError(t, err)
		server, events := newSecureServer(t, driver.Config{}, driver.SecureDesc{TLSConfig: func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
		}})
		requireServes(t, server, events, developmentDesc())
	})
	t.Run("NoVerification", func(t *testing.T) {
		server, _ := newSecureServer(t, driver.Config{}, developmentDesc())
		client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{TLSConfig: func(c *tls.Config) {
			c.InsecureSkipVerify = true
		}})
		require.NoError(t, client.ConnectTo(addrOf(server)))
		events.waitEstablished(t, 1)
	})
	t.Run("Renegotiation", func(t *testing.T) {
		server, _ := newSecureServer(t, driver.Config{}, developmentDesc())
		desc := developmentDesc()
		desc.TLSConfig = func(c *tls.Config) { c.Renegotiation = tls.RenegotiateFreelyAsClient }
		client, events := newSecureDriver(t, driver.Config{}, desc)
		require.NoError(t, client.ConnectTo(addrOf(server)))
		requireRefused(t, events, false, says("RenegotiateNever"))
	})
	t.Run("PanicInACallback", func(t *testing.T) {
		desc := developmentDesc()
		var panics atomic.Bool
		panics.Store(true)
		desc.TLSConfig = func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				if panics.Load() {
					panic("a callback of tls.Config")
				}
				return nil, nil
			}
		}
		server, events := newSecureServer(t, driver.Config{}, desc)
		require.Error(t, standardClient(t, addrOf(server), &tls.Config{InsecureSkipVerify: true}))
		requireHandshakeFailed(t, server, events)
		require.EqualValues(t, 1, server.Stats().Panics)
		panics.Store(false)
		requireServes(t, server, events, developmentDesc())
	})
}

// TestTLSConfigAddsToTheVerification, and takes nothing of it away but with InsecureSkipVerify.
func TestTLSConfigAddsToTheVerification(t *testing.T) {
	type outcome string
	const (
		connects outcome = "connects"
		refuses  outcome = "refuses the server"
		isNone   outcome = "is no configuration to connect with"
	)
	const known = "game.example.com"
	id := newIdentity(t, template{name: known, san: true})
	pool := x509.NewCertPool()
	pool.AddCert(id.certificate)
	server, _ := newSecureServer(t, driver.Config{}, driver.SecureDesc{CertificatePEM: id.certPEM, PrivateKeyPEM: id.keyPEM})
	own, stranger := id.certPEM, newIdentity(t, template{name: "stranger"}).certPEM
	check := func(result error) func(*tls.Config) {
		return func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return result } }
	}
	for name, test := range map[string]struct {
		authority  []byte
		serverName string
		hook       func(*tls.Config)
		outcome    outcome
	}{
		"nothing":                                   {own, "", func(*tls.Config) {}, connects},
		"nothing, with another authority":           {stranger, "", func(*tls.Config) {}, refuses},
		"a nil check, with another authority":       {stranger, "", func(c *tls.Config) { c.VerifyConnection = nil }, refuses},
		"a check of its own":                        {own, "", check(nil), connects},
		"a check of its own, and another authority": {stranger, "", check(nil), refuses},
		"a check of its own that fails":             {own, "", check(errKicked), refuses},
		"the name":                                  {own, "", func(c *tls.Config) { c.ServerName = known }, connects},
		"the name, with another authority":          {stranger, "", func(c *tls.Config) { c.ServerName = known }, refuses},
		"the name, and a check that fails":          {own, "", func(c *tls.Config) { check(errKicked)(c); c.ServerName = known }, refuses},
		"another name":                              {own, "", func(c *tls.Config) { c.ServerName = "other.example.com" }, refuses},
		"no name where there was one":               {own, known, func(c *tls.Config) { c.ServerName = "" }, isNone},
		"another time":                              {own, "", func(c *tls.Config) { c.Time = func() time.Time { return time.Unix(0, 0) } }, refuses},
		"other authorities":                         {stranger, "", func(c *tls.Config) { c.RootCAs = pool }, isNone},
		"other authorities, and the name":           {stranger, "", func(c *tls.Config) { c.RootCAs, c.ServerName = pool, known }, connects},
		"other authorities, and another name":       {stranger, known, func(c *tls.Config) { c.RootCAs, c.ServerName = pool, "other" }, refuses},
		"other authorities, where there is a name":  {stranger, known, func(c *tls.Config) { c.RootCAs = pool }, connects},
		"the system's authorities":                  {own, "", func(c *tls.Config) { c.RootCAs = nil }, isNone},
		"the system's authorities, and the name":    {own, "", func(c *tls.Config) { c.RootCAs, c.ServerName = nil, known }, refuses},
		"no verification":                           {stranger, "", func(c *tls.Config) { c.InsecureSkipVerify = true }, connects},
		"no verification, where there is a name":    {stranger, "other", func(c *tls.Config) { c.InsecureSkipVerify = true }, connects},
		"no verification but its own, which fails":  {own, "", func(c *tls.Config) { check(errKicked)(c); c.InsecureSkipVerify = true }, refuses},
	} {
		t.Run(name, func(t *testing.T) {
			bothSecureDrivers(t, func(t *testing.T, newDriver newSecureServerFunc) {
				desc := id.pair().desc()
				desc.CertificateAuthorityPEM, desc.ServerName, desc.TLSConfig = test.authority, test.serverName, test.hook
				client, events := newDriver(driver.Config{EventLoops: 1}, desc)
				if err := client.ConnectTo(addrOf(server)); test.outcome == isNone {
					require.ErrorIs(t, err, driver.ErrSecureConfig)
					return
				} else {
					require.NoError(t, err)
				}
				eventually(t, "an outcome", func() bool { e, d := events.counts(); return e+d > 0 })
				established, _ := events.counts()
				require.Equal(t, test.outcome == connects, established == 1)
			})
		})
	}
}

// TestIntermediateCertificates come from the server, whether a name is verified or not.
func TestIntermediateCertificates(t *testing.T) {
	const known = "game.example.com"
	root := newIdentity(t, template{name: "root"})
	between := newIdentity(t, template{name: "between", issuer: root, ca: true})
	leaf := newIdentity(t, template{name: known, san: true, issuer: between})
	for name, test := range map[string]struct {
		chain      [][]byte
		serverName string
		connects   bool
	}{
		"any name":                   {[][]byte{leaf.certPEM, between.certPEM}, "", true},
		"the name":                   {[][]byte{leaf.certPEM, between.certPEM}, known, true},
		"any name, and none of them": {[][]byte{leaf.certPEM}, "", false},
		"the name, and none of them": {[][]byte{leaf.certPEM}, known, false},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := newSecureServer(t, driver.Config{}, driver.SecureDesc{CertificatePEM: bytes.Join(test.chain, nil), PrivateKeyPEM: leaf.keyPEM})
			client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{CertificateAuthorityPEM: root.certPEM, ServerName: test.serverName})
			require.NoError(t, client.ConnectTo(addrOf(server)))
			if test.connects {
				events.waitEstablished(t, 1)
			} else {
				untrusted[x509.UnknownAuthorityError](t, events.waitDisconnected(t, 1).Reason)
			}
		})
	}
}

func TestReloadSecurityKeepsAServersCertificate(t *testing.T) {
	server, _ := newSecureServer(t, driver.Config{}, developmentDesc())
	err := server.ReloadSecurity(driver.SecureDesc{}) // e.g. of files that could not be read
	require.ErrorIs(t, err, driver.ErrSecureCert)
	require.ErrorContains(t, err, "a server needs SecureDesc.CertificatePEM")
	client, _ := newSecureDriver(t, driver.Config{}, developmentDesc())
	connect(t, client, server)
}

// TestCertificateThatIsNotValidNow is used all the same: the clock may be what is wrong. The log has it.
func TestCertificateThatIsNotValidNow(t *testing.T) {
	expired := newIdentity(t, template{name: "expired", notAfter: time.Now().Add(-time.Hour)})
	for name, test := range map[string]struct {
		first, then *identity
		warned      []int // after either
	}{
		"Valid":               {development(), development(), []int{0, 0}},
		"ExpiredAtInitialize": {expired, development(), []int{1, 1}},
		"ExpiredAtReload":     {development(), expired, []int{0, 1}},
		"ExpiredTwice":        {expired, expired, []int{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			out := &logbook{}
			warnings := func() int { return len(out.lines(`level=WARN msg="driver: a certificate is not valid now`)) }
			d, err := driver.NewSecure(driver.Config{EventLoops: 1, Logger: slog.New(slog.NewTextHandler(out, nil))})
			require.NoError(t, err)
			defer d.Close()
			require.NoError(t, d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, test.first.pair().desc()))
			require.Equal(t, test.warned[0], warnings())
			require.NoError(t, d.ReloadSecurity(test.then.pair().desc()))
			require.Equal(t, test.warned[1], warnings())
			require.NoError(t, d.StartListen(0))
			require.Equal(t, test.then.certificate.Subject.CommonName, nameSeen(t, d))
			require.Len(t, out.lines("CN=expired"), warnings())
		})
	}
}

// TestTLSOfWhoIsGone: also the last event tells who it was.
func TestTLSOfWhoIsGone(t *testing.T) {
	for _, dispatch := range []driver.Dispatch{driver.DispatchOnLoop, driver.DispatchOnUpdate} {
		desc := developmentDesc()
		desc.AuthenticateClient = true
		server, err := driver.NewSecure(driver.Config{Dispatch: dispatch})
		require.NoError(t, err)
		defer server.Close()
		seen := make(chan int, 2)
		note := func(ev driver.Event) {
			state, _ := ev.Conn.TLS()
			seen <- len(state.PeerCertificates)
		}
		server.Events().Subscribe(driver.SubscriberFuncs{Established: note, Disconnected: note})
		require.NoError(t, server.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, desc))
		require.NoError(t, server.StartListen(0))
		pair, err := tls.X509KeyPair(desc.CertificatePEM, desc.PrivateKeyPEM)
		require.NoError(t, err)
		nc := tls.Client(dial(t, server), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
		require.NoError(t, nc.Handshake())
		require.NoError(t, nc.Close())
		eventually(t, "both events", func() bool { server.Update(); return len(seen) == 2 })
		require.Equal(t, []int{1, 1}, []int{<-seen, <-seen})
	}
}

// TestDamagedRecordWhileMuchIsQueued: the reason is the record.
func TestDamagedRecordWhileMuchIsQueued(t *testing.T) {
	const size = 16 << 20
	server, events := newSecureServer(t, driver.Config{Framing: driver.LengthPrefix32BE, MaxPacketSize: size}, developmentDesc())
	raw := dial(t, server)
	require.NoError(t, tls.Client(raw, &tls.Config{InsecureSkipVerify: true}).Handshake())
	c := events.waitEstablished(t, 1).Conn
	require.NoError(t, c.Send(make([]byte, size)))
	eventually(t, "a full socket", func() bool { return c.Stats().BytesSent > 100_000 })
	_, err := raw.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
	require.NoError(t, err)
	require.ErrorContains(t, events.waitDisconnected(t, 1).Reason, "bad record MAC")
}
