package tlsadapter_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/tlsadapter"
)

// BenchmarkHandshake is one full TLS 1.3 handshake, both sides: as sessions on one goroutine, and as tls.Conns with
// a goroutine each over an in-memory pipe.
func BenchmarkHandshake(b *testing.B) {
	for _, cert := range []struct {
		name string
		tls.Certificate
	}{{"ecdsa", pki().ecdsa}, {"rsa2048", pki().rsa}} {
		client, server := clientConfig(), serverConfig()
		server.Certificates = []tls.Certificate{cert.Certificate}
		b.Run("cert="+cert.name+"/impl=session", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				establish(b, client, server)
			}
		})
		b.Run("cert="+cert.name+"/impl=conn", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, s := newConnPair(b, client, server)
				go s.Handshake()
				require.NoError(b, c.Handshake())
				c.NetConn().Close()
			}
		})
	}
}

// BenchmarkEcho is one packet there and back, both sides.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{64, 1024, 16 << 10} {
		packet := make([]byte, size)
		b.Run(fmt.Sprintf("packet=%d/impl=session", size), func(b *testing.B) {
			c, s := establish(b, clientConfig(), serverConfig())
			echo := newEcho(c.Session, s.Session)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				echo(packet)
			}
		})
		b.Run(fmt.Sprintf("packet=%d/impl=conn", size), func(b *testing.B) {
			c, s := newConnPair(b, clientConfig(), serverConfig())
			go io.Copy(s, s)
			require.NoError(b, c.Handshake())
			got := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				must(c.Write(packet))
				must(io.ReadFull(c, got))
			}
			c.NetConn().Close()
		})
	}
}

// newEcho returns a function that sends a packet from c to s and back, without allocating itself.
func newEcho(c, s *tlsadapter.Session) func(packet []byte) {
	var wire []byte
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	back := func(plain []byte) { check(s.Seal(plain)) }
	got := 0
	count := func(plain []byte) { got += len(plain) }
	return func(packet []byte) {
		got = 0
		check(c.Seal(packet))
		wire = c.TakeOutput(wire[:0])
		check(s.Open(wire, back))
		wire = s.TakeOutput(wire[:0])
		check(c.Open(wire, count))
		if got != len(packet) {
			panic("echo lost bytes")
		}
	}
}
