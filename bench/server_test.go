package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// server is what is measured: it sends every packet back.
type server struct {
	addr      string
	conns     func() int // established ones
	broadcast func(packet []byte) int
	close     func()
}

// serverOptions is what the benchmarks vary.
type serverOptions struct {
	id         *identity // nil: plain
	broadcasts bool
}

// impls are the servers, by the name that benchmarks give them. Where packets come together there is also unbatched, the
// server on the standard library that writes each answer as it comes.
var impls = []string{"loop", "stdlib"}

const unbatched = "stdlib-unbatched"

func startServer(tb testing.TB, impl string, o serverOptions) *server {
	tb.Helper()
	switch impl {
	case "loop":
		return startDriver(tb, o)
	case "stdlib", unbatched:
		return startStdlib(tb, o.id, stdlibOptions{broadcasts: o.broadcasts, unbatched: impl == unbatched})
	}
	tb.Fatalf("no server %q", impl)
	return nil
}

func startDriver(tb testing.TB, o serverOptions) *server {
	tb.Helper()
	cfg := driver.Config{OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }}
	bind := driver.Bind{Address: "127.0.0.1"}
	var d driver.Driver
	if o.id == nil {
		s, err := driver.New(cfg)
		require.NoError(tb, err)
		require.NoError(tb, s.Initialize(bind))
		d = s
	} else {
		s, err := driver.NewSecure(cfg)
		require.NoError(tb, err)
		require.NoError(tb, s.InitializeSecurity(bind, driver.SecureDesc{CertificatePEM: o.id.certPEM, PrivateKeyPEM: o.id.keyPEM}))
		d = s
	}
	require.NoError(tb, d.StartListen(0))
	return &server{
		addr:      net.JoinHostPort("127.0.0.1", strconv.Itoa(int(d.Port()))),
		conns:     d.NumberOfConnections,
		broadcast: func(packet []byte) int { return d.Broadcast(packet, nil) },
		close:     func() { require.NoError(tb, d.Close()) },
	}
}

func startStdlib(tb testing.TB, id *identity, opts stdlibOptions) *server {
	tb.Helper()
	var cfg *tls.Config
	if id != nil {
		pair, err := tls.X509KeyPair(id.certPEM, id.keyPEM)
		require.NoError(tb, err)
		cfg = &tls.Config{ // the driver's
			Certificates:                []tls.Certificate{pair},
			MinVersion:                  tls.VersionTLS12,
			DynamicRecordSizingDisabled: true,
		}
	}
	s, err := newStdlibServer(cfg, opts)
	require.NoError(tb, err)
	return &server{addr: s.ln.Addr().String(), conns: s.len, broadcast: s.Broadcast, close: s.close}
}

// identity is a certificate and its key, in PEM form.
type identity struct{ certPEM, keyPEM []byte }

var (
	ecdsaIdentity = sync.OnceValue(func() *identity {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return newIdentity(key, key.Public(), err)
	})
	rsaIdentity = sync.OnceValue(func() *identity {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		return newIdentity(key, key.Public(), err)
	})
)

func newIdentity(key, public any, err error) *identity {
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		DNSNames:     []string{"bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return &identity{
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// identityFor is the certificate of a server with TLS, or none.
func identityFor(secure bool) *identity {
	if secure {
		return ecdsaIdentity()
	}
	return nil
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// processorTime is what this process, the server's, has used, in user space and in the kernel.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// scaled is n, or less where each benchmark is only to be run once, with -short.
func scaled(n int) int {
	if testing.Short() {
		return max(n/50, 2)
	}
	return n
}

// window is one iteration of a benchmark that lets a load run.
func window(d time.Duration) time.Duration {
	if testing.Short() {
		return d / 20
	}
	return d
}

// run lets a load run for as long as the benchmark wants, and returns what it came to, and the processor time of the server.
func run(b *testing.B, load *process, d time.Duration) (outcome, time.Duration) {
	b.Helper()
	load.do("start", 0)
	time.Sleep(window(200 * time.Millisecond)) // until buffers and stacks have grown
	load.do("mark", 0)
	before := processorTime()
	for b.Loop() {
		time.Sleep(window(d))
	}
	used := processorTime() - before
	o := load.do("stop", 0)
	if o.Failed > 0 {
		b.Fatalf("%d clients failed: %s", o.Failed, o.Error)
	}
	return o, used
}

// report reports o and the processor time per operation, not ns/op: an iteration is a window.
func report(b *testing.B, o outcome, used time.Duration, unit string) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(o.rate(), unit+"/s")
	b.ReportMetric(float64(used.Microseconds())/float64(max(o.Count, 1)), "cpu-µs/op")
	reportLatency(b, o)
}

func reportLatency(b *testing.B, o outcome) {
	b.ReportMetric(float64(o.P50), "p50-ns")
	b.ReportMetric(float64(o.P99), "p99-ns")
}

// forEachImpl runs a benchmark once for each server, one after the other.
func forEachImpl(b *testing.B, name string, run func(b *testing.B, impl string), more ...string) {
	for _, impl := range append(impls[:len(impls):len(impls)], more...) {
		b.Run(fmt.Sprintf("%simpl=%s", name, impl), func(b *testing.B) { run(b, impl) })
	}
}
