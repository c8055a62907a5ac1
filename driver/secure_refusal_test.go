package driver_test

import (
	"testing"

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
