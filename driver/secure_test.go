package driver_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/driver/drivertest"
)

func TestSecureConformance(t *testing.T) { drivertest.Run(t, newSecured) }

func newSecureDriver(t testing.TB, cfg driver.Config, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	if cfg.EventLoops == 0 {
		cfg.EventLoops = 2
	}
	d, err := driver.NewSecure(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	events := &recorder{}
	d.Events().Subscribe(events)
	require.NoError(t, d.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, desc))
	return d, events
}

func newSecureServer(t testing.TB, cfg driver.Config, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	d, events := newSecureDriver(t, cfg, desc)
	require.NoError(t, d.StartListen(0))
	return d, events
}

func TestSecurePacketsBothWays(t *testing.T) {
	server, serverEvents := newSecureServer(t, driver.Config{}, developmentDesc())
	client, clientEvents := newSecureDriver(t, driver.Config{}, developmentDesc())
	clientConn, serverConn := connect(t, client, server)
	require.NoError(t, client.Send(addrOf(server), []byte("hello")))
	packet, from := receive(t, server)
	require.Equal(t, "hello", string(packet))
	require.NoError(t, server.Send(from, []byte("welcome")))
	packet, _ = receive(t, client)
	require.Equal(t, "welcome", string(packet))
	for _, c := range []driver.Conn{clientConn, serverConn} {
		state, ok := c.TLS()
		require.True(t, ok)
		require.True(t, state.HandshakeComplete)
	}
	require.NoError(t, client.DisconnectFrom(addrOf(server)))
	require.ErrorIs(t, clientEvents.waitDisconnected(t, 1).Reason, driver.ErrDisconnected)
	require.ErrorIs(t, serverEvents.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
}
