package driver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// gridMateSuite is the one that GridMate's secure driver speaks, with TLS 1.2.
const gridMateSuite = "ECDHE-RSA-AES256-GCM-SHA384"

// versions are what GridMate speaks and what is spoken today, as openssl, gnutls and crypto/tls call it.
var versions = []struct {
	name    string
	openssl []string
	gnutls  string
	want    uint16
	suite   uint16 // 0: any
}{
	{
		name:    "TLS13",
		openssl: []string{"-tls1_3"},
		gnutls:  "NORMAL:-VERS-ALL:+VERS-TLS1.3",
		want:    tls.VersionTLS13,
	},
	{
		name:    "TLS12GridMate",
		openssl: []string{"-tls1_2", "-cipher", gridMateSuite},
		gnutls:  "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-RSA:-CIPHER-ALL:+AES-256-GCM",
		want:    tls.VersionTLS12,
		suite:   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	},
}

// pemPair is a certificate and its key, also as files for programs.
type pemPair struct{ cert, key []byte }

// files are the paths of the certificate and the key.
func (p pemPair) files(t testing.TB) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	require.NoError(t, os.WriteFile(cert, p.cert, 0o600))
	require.NoError(t, os.WriteFile(key, p.key, 0o600))
	return cert, key
}

// desc has the certificate as its own authority.
func (p pemPair) desc() driver.SecureDesc {
	return driver.SecureDesc{CertificatePEM: p.cert, PrivateKeyPEM: p.key, CertificateAuthorityPEM: p.cert}
}

func (id *identity) pair() pemPair { return pemPair{cert: id.certPEM, key: id.keyPEM} }

var gridMateOnce = sync.OnceValues(func() (pair pemPair, err error) {
	dir, err := os.MkdirTemp("", "gridmate")
	if err != nil {
		return pair, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "c.pem",
		"-days", "365", "-subj", "/CN=gridmate")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return pair, fmt.Errorf("%w: %s", err, out)
	}
	if pair.cert, err = os.ReadFile(filepath.Join(dir, "c.pem")); err != nil {
		return pair, err
	}
	pair.key, err = os.ReadFile(filepath.Join(dir, "k.pem"))
	return pair, err
})

// gridMate is a certificate that was made as GridMate's guide has it: a CN and no SAN.
func gridMate(t testing.TB) pemPair {
	t.Helper()
	needProgram(t, "openssl")
	pair, err := gridMateOnce()
	require.NoError(t, err)
	return pair
}

func needProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed; .ci/run installs it", name)
	}
}

var opensslVersion = sync.OnceValue(func() string {
	out, _ := exec.Command("openssl", "version").Output()
	return string(out)
})

// needOpenSSL3 skips where openssl is LibreSSL, or so old that it lacks options.
func needOpenSSL3(t testing.TB) {
	t.Helper()
	needProgram(t, "openssl")
	if v := opensslVersion(); !strings.HasPrefix(v, "OpenSSL ") || strings.HasPrefix(v, "OpenSSL 1") {
		t.Skipf("needs OpenSSL 3, which .ci/run installs where openssl is missing; this is %s", v)
	}
}

// program is a TLS peer that carries its stdin and stdout.
type program struct {
	name   string
	stdin  io.WriteCloser
	stdout io.Reader
	log    bytes.Buffer // stderr; after wait
	exited chan error
}

// startProgram starts a program, which ends with the test.
func startProgram(t testing.TB, name string, args ...string) *program {
	t.Helper()
	needProgram(t, name)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, name, args...)
	p := &program{name: name + " " + strings.Join(args, " "), exited: make(chan error, 1)}
	var err error
	p.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	stdout, stdoutWriter, err := os.Pipe() // StdoutPipe must not be read any more when Wait is called
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr, p.stdout = stdoutWriter, &p.log, stdout
	require.NoError(t, cmd.Start())
	stdoutWriter.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.exited <- cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		stdout.Close()
		if t.Failed() {
			t.Logf("%s:\n%s", p.name, &p.log)
		}
	})
	return p
}

// wait is what the program logged until it ended, and its error.
func (p *program) wait(t testing.TB) (log string, err error) {
	t.Helper()
	select {
	case err = <-p.exited:
		return p.log.String(), err
	case <-time.After(patience + time.Second):
		t.Fatalf("did not end: %s", p.name)
		return "", nil
	}
}

// send has the program send packets, in their frames, without waiting.
func (p *program) send(packets ...[]byte) {
	var stream []byte
	for _, packet := range packets {
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(packet))), packet...)
	}
	go p.stdin.Write(stream)
}

// receive is the next packet that the program got.
func (p *program) receive(t testing.TB) []byte {
	t.Helper()
	var head [2]byte
	_, err := io.ReadFull(p.stdout, head[:])
	require.NoError(t, err, p.name)
	packet := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err = io.ReadFull(p.stdout, packet)
	require.NoError(t, err, p.name)
	return packet
}

// awkward are packets of which a program, or a TLS record, might make something else.
func awkward() [][]byte {
	return [][]byte{
		[]byte("hello"), []byte("Q\n"), []byte("R\n"), []byte("K\nk\nB\n"), []byte("\r\n.\r\n"), {0}, {0xff, 0x04, 0x1a},
		bytes.Repeat([]byte("Q\n\x00"), 21845), // 65,535 bytes, the most
	}
}

// requireEcho sends what is awkward from a program to a server that echoes it.
func requireEcho(t testing.TB, p *program) {
	t.Helper()
	p.send(awkward()...)
	for i, want := range awkward() {
		require.True(t, bytes.Equal(want, p.receive(t)), "packet %d", i)
	}
}

// newSecureEcho is a secure server that echoes.
func newSecureEcho(t testing.TB, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	return newSecureServer(t, driver.Config{
		OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) },
		// A packet of the largest size, and a few behind it.
		OutboundBufferSize: 256 << 10,
	}, desc)
}

func stateOf(t testing.TB, c driver.Conn) tls.ConnectionState {
	t.Helper()
	state, secure := c.TLS()
	require.True(t, secure)
	require.True(t, state.HandshakeComplete)
	return state
}

// startClient has s_client connect to the server.
func startClient(t testing.TB, server driver.Driver, args ...string) *program {
	t.Helper()
	needOpenSSL3(t)
	// -quiet: nothing but the bytes. It implies -ign_eof, with which the end of stdin is not the end; without it and
	// -nocommands a packet that begins with Q is.
	return startProgram(t, "openssl", append([]string{
		"s_client", "-connect", addrOf(server).String(), "-quiet", "-no_ign_eof", "-nocommands", "-verify_return_error",
	}, args...)...)
}

// startServer has s_server listen. It serves one connection after another; the first is not the test's.
func startServer(t testing.TB, args ...string) (*program, netip.AddrPort) {
	t.Helper()
	needOpenSSL3(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	require.NoError(t, ln.Close())
	p := startProgram(t, "openssl", append([]string{"s_server", "-accept", addr.String(), "-quiet"}, args...)...)
	eventually(t, "s_server listens", func() bool {
		nc, err := net.Dial("tcp", addr.String())
		if err == nil {
			nc.Close() // a handshake that fails, for s_server
		}
		return err == nil
	})
	return p, addr
}

func TestSecureServerWithOpenSSLClient(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			server, events := newSecureEcho(t, gridMate(t).desc())
			cert, _ := gridMate(t).files(t)
			p := startClient(t, server, append(v.openssl, "-CAfile", cert, "-verify_hostname", "gridmate")...)
			requireEcho(t, p)
			state := stateOf(t, events.waitEstablished(t, 1).Conn)
			require.Equal(t, v.want, state.Version)
			if v.suite != 0 {
				require.Equal(t, v.suite, state.CipherSuite)
			}

			require.NoError(t, p.stdin.Close())
			require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
			log, err := p.wait(t)
			require.NoError(t, err, log)
		})
	}
}

// TestSecureServerTakesPaddedRecords: padding is there to hide how long packets are (RFC 8446, section 5.4), and may be most of what comes.
func TestSecureServerTakesPaddedRecords(t *testing.T) {
	bothSecureDrivers(t, func(t *testing.T, newServer newSecureServerFunc) {
		server, _ := newServer(driver.Config{OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }}, gridMate(t).desc())
		cert, _ := gridMate(t).files(t)
		p := startClient(t, server, "-tls1_3", "-CAfile", cert, "-record_padding", "1024")
		for i := range 200 {
			packet := fmt.Appendf(nil, "packet %d", i)
			p.send(packet)
			require.Equal(t, string(packet), string(p.receive(t)))
		}
	})
}

func TestSecureServerClosesOpenSSLClientInOrder(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			server, events := newSecureServer(t, driver.Config{OutboundBufferSize: 256 << 10}, gridMate(t).desc())
			cert, _ := gridMate(t).files(t)
			p := startClient(t, server, append(v.openssl, "-CAfile", cert)...)
			c := events.waitEstablished(t, 1).Conn
			last := bytes.Repeat([]byte("last words "), 5000)
			require.NoError(t, c.Send(last))
			c.Close(nil)
			require.True(t, bytes.Equal(last, p.receive(t)))
			log, err := p.wait(t)
			require.NoError(t, err, log) // close_notify: no error of a stream that was cut
			require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrDisconnected)
		})
	}
}

func TestSecureClientWithOpenSSLServer(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			cert, key := gridMate(t).files(t)
			p, addr := startServer(t, append(v.openssl, "-cert", cert, "-key", key, "-naccept", "2")...)
			client, events := newSecureDriver(t, driver.Config{OutboundBufferSize: 256 << 10},
				driver.SecureDesc{CertificateAuthorityPEM: gridMate(t).cert})
			require.NoError(t, client.ConnectTo(addr))
			state := stateOf(t, events.waitEstablished(t, 1).Conn)
			require.Equal(t, v.want, state.Version)
			if v.suite != 0 {
				require.Equal(t, v.suite, state.CipherSuite)
			}
			for _, packet := range awkward() {
				require.NoError(t, client.Send(addr, packet))
			}
			for i, want := range awkward() {
				require.True(t, bytes.Equal(want, p.receive(t)), "packet %d", i)
			}
			p.send(awkward()...)
			for i, want := range awkward() {
				packet, from := receive(t, client)
				require.True(t, bytes.Equal(want, packet), "packet %d", i)
				require.Equal(t, addr, from)
			}
			require.NoError(t, client.DisconnectFrom(addr))
			require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrDisconnected)
			log, _ := p.wait(t)
			require.LessOrEqual(t, strings.Count(log, "unexpected eof"), 1, log) // startServer's; ours had close_notify
		})
	}
}

func TestSecureServerWithGnuTLSClient(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			needProgram(t, "gnutls-cli")
			server, events := newSecureEcho(t, gridMate(t).desc())
			cert, _ := gridMate(t).files(t)
			p := startProgram(t, "gnutls-cli", "--logfile", filepath.Join(t.TempDir(), "log"), "--priority", v.gnutls,
				"--x509cafile", cert, "--verify-hostname", "gridmate", "--port", fmt.Sprint(server.Port()), "127.0.0.1")
			requireEcho(t, p)
			state := stateOf(t, events.waitEstablished(t, 1).Conn)
			require.Equal(t, v.want, state.Version)
			if v.suite != 0 {
				require.Equal(t, v.suite, state.CipherSuite)
			}
			require.NoError(t, p.stdin.Close())
			require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
			log, err := p.wait(t)
			require.NoError(t, err, log)
		})
	}
}

func TestSecureServerResumesOpenSSLClient(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			server, events := newSecureEcho(t, gridMate(t).desc())
			cert, _ := gridMate(t).files(t)
			session := filepath.Join(t.TempDir(), "session")
			for n, args := range [][]string{{"-sess_out", session}, {"-sess_in", session}} {
				p := startClient(t, server, append(append(args, v.openssl...), "-CAfile", cert)...)
				requireEcho(t, p) // has the ticket come, too
				require.Equal(t, n > 0, stateOf(t, events.waitEstablished(t, n+1).Conn).DidResume)
				require.NoError(t, p.stdin.Close())
				log, err := p.wait(t)
				require.NoError(t, err, log)
			}
		})
	}
}

func TestSecureClientResumesWithOpenSSLServer(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			cert, key := gridMate(t).files(t)
			p, addr := startServer(t, append(v.openssl, "-cert", cert, "-key", key)...)
			client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{CertificateAuthorityPEM: gridMate(t).cert})
			for n := range 3 {
				require.NoError(t, client.ConnectTo(addr))
				c := events.waitEstablished(t, n+1).Conn
				require.Equal(t, n > 0, stateOf(t, c).DidResume)
				p.send([]byte("welcome"))
				receive(t, client) // and the ticket before it
				require.NoError(t, client.DisconnectFrom(addr))
				require.ErrorIs(t, events.waitDisconnected(t, n+1).Reason, driver.ErrDisconnected)
			}
		})
	}
}

func TestSecureALPNWithOpenSSL(t *testing.T) {
	desc := gridMate(t).desc()
	desc.TLSConfig = func(c *tls.Config) { c.NextProtos = []string{"gridstream/2", "gridstream/1"} }
	cert, key := gridMate(t).files(t)

	t.Run("Server", func(t *testing.T) {
		server, events := newSecureEcho(t, desc)
		p := startClient(t, server, "-CAfile", cert, "-alpn", "other,gridstream/1")
		requireEcho(t, p)
		require.Equal(t, "gridstream/1", stateOf(t, events.waitEstablished(t, 1).Conn).NegotiatedProtocol)
	})
	t.Run("ServerWithoutCommonProtocol", func(t *testing.T) {
		server, events := newSecureEcho(t, desc)
		p := startClient(t, server, "-CAfile", cert, "-alpn", "other")
		log, err := p.wait(t)
		require.Error(t, err)
		require.Contains(t, log, "alert number 120")
		requireHandshakeFailed(t, server, events)
	})
	t.Run("Client", func(t *testing.T) {
		_, addr := startServer(t, "-cert", cert, "-key", key, "-alpn", "gridstream/1")
		client, events := newSecureDriver(t, driver.Config{}, desc)
		require.NoError(t, client.ConnectTo(addr))
		require.Equal(t, "gridstream/1", stateOf(t, events.waitEstablished(t, 1).Conn).NegotiatedProtocol)
	})
}

func TestSecureClientCertificateWithOpenSSL(t *testing.T) {
	needProgram(t, "openssl")
	authority := newIdentity(t, template{name: "authority"})
	serverID := newIdentity(t, template{name: "server", issuer: authority, rsa: true, san: true})
	clientID := newIdentity(t, template{name: "player 7", issuer: authority, rsa: true})
	ca, _ := authority.pair().files(t)

	for _, v := range versions {
		t.Run("Server/"+v.name, func(t *testing.T) {
			server, events := newSecureEcho(t, driver.SecureDesc{
				CertificatePEM: serverID.certPEM, PrivateKeyPEM: serverID.keyPEM,
				CertificateAuthorityPEM: authority.certPEM, AuthenticateClient: true,
			})
			cert, key := clientID.pair().files(t)
			p := startClient(t, server, append(v.openssl, "-CAfile", ca, "-verify_ip", "127.0.0.1", "-cert", cert, "-key", key)...)
			requireEcho(t, p)
			peers := stateOf(t, events.waitEstablished(t, 1).Conn).PeerCertificates
			require.NotEmpty(t, peers)
			require.Equal(t, "player 7", peers[0].Subject.CommonName)
		})
		t.Run("Client/"+v.name, func(t *testing.T) {
			cert, key := serverID.pair().files(t)
			p, addr := startServer(t, append(v.openssl, "-cert", cert, "-key", key, "-CAfile", ca, "-Verify", "1",
				"-verify_return_error")...)
			client, events := newSecureDriver(t, driver.Config{}, driver.SecureDesc{
				CertificatePEM: clientID.certPEM, PrivateKeyPEM: clientID.keyPEM,
				CertificateAuthorityPEM: authority.certPEM, ServerName: "server",
			})
			require.NoError(t, client.ConnectTo(addr))
			events.waitEstablished(t, 1)
			require.NoError(t, client.Send(addr, []byte("it is me")))
			require.Equal(t, "it is me", string(p.receive(t)))
		})
	}
}
