package stdnet_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/driver/stdnet"
	"gridstream/tlsadapter"
)

// clientReason is why a client's connection to addr ends. configure has the last word on its TLS configuration, which trusts anybody.
func clientReason(t *testing.T, addr netip.AddrPort, configure func(*tls.Config)) error {
	t.Helper()
	client, err := stdnet.NewSecure(driver.Config{})
	require.NoError(t, err)
	defer client.Close()
	ended := make(chan error, 1)
	client.Events().Subscribe(driver.SubscriberFuncs{Disconnected: func(ev driver.Event) { ended <- ev.Reason }})
	require.NoError(t, client.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, driver.SecureDesc{TLSConfig: func(c *tls.Config) {
		c.InsecureSkipVerify = true
		configure(c)
	}}))
	require.NoError(t, client.ConnectTo(addr))
	select {
	case reason := <-ended:
		return reason
	case <-time.After(20 * time.Second):
		t.Fatal("the connection does not end")
		return nil
	}
}

func startSecure(t *testing.T) netip.AddrPort {
	t.Helper()
	server, err := newSecure(driver.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	require.NoError(t, server.Initialize(driver.Bind{Address: "127.0.0.1"}))
	require.NoError(t, server.StartListen(0))
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.Port())
}

// panickingCache is called when a ticket comes: in a read, after the handshake.
type panickingCache struct{}

func (*panickingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (*panickingCache) Put(string, *tls.ClientSessionState) { panic("the application's cache") }

func TestPanicInATLSCallbackAfterTheHandshakeEndsTheConnection(t *testing.T) {
	reason := clientReason(t, startSecure(t), func(c *tls.Config) { c.ClientSessionCache = &panickingCache{} })
	require.ErrorIs(t, reason, driver.ErrPanic)
}

func TestRenegotiationIsRefused(t *testing.T) {
	reason := clientReason(t, startSecure(t), func(c *tls.Config) { c.Renegotiation = tls.RenegotiateFreelyAsClient })
	require.ErrorIs(t, reason, tlsadapter.ErrRenegotiation)
}

func TestHandshakeThatIsCutIsTruncated(t *testing.T) {
	for name, sent := range map[string]string{"at once": "", "within a record": "\x16\x03\x03"} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			go func() {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				_, _ = io.WriteString(nc, sent)
				_ = nc.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, nc)
			}()
			reason := clientReason(t, netip.MustParseAddrPort(ln.Addr().String()), func(*tls.Config) {})
			require.ErrorIs(t, reason, tlsadapter.ErrTruncated)
			require.NotErrorIs(t, reason, io.EOF)
		})
	}
}
