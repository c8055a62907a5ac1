package chaos_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/bench/chaos/kind"
	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// TestResetsAreNoOrderlyEnd: a reset can come in while the kernel is asked what is new, which then tells of an error and nothing to read. It
// is rare: some in a million.
func TestResetsAreNoOrderlyEnd(t *testing.T) {
	resets := 100_000
	if testing.Short() {
		resets /= 10
	}
	for _, k := range kind.All {
		if k.TLS {
			continue
		}
		t.Run(k.String(), func(t *testing.T) {
			desc, err := drivertest.Development()
			require.NoError(t, err)
			d, err := k.New(driver.Config{OnPacket: func(driver.Conn, []byte) {}}, desc)
			require.NoError(t, err)
			defer d.Close()
			var orderly atomic.Int64
			d.Events().Subscribe(driver.SubscriberFuncs{Disconnected: func(ev driver.Event) {
				if ev.Reason == driver.ErrPeerClosed {
					orderly.Add(1)
				}
			}})
			require.NoError(t, d.Initialize(driver.Bind{Address: local}))
			require.NoError(t, d.StartListen(0))
			server := &net.TCPAddr{IP: net.ParseIP(local), Port: int(d.Port())}
			var clients sync.WaitGroup
			var refused atomic.Int64
			const atOnce = 4
			for range atOnce {
				clients.Go(func() {
					for range resets / atOnce {
						nc, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(attackersAddress)}, server)
						if err != nil {
							refused.Add(1)
							continue
						}
						_ = nc.SetLinger(0)
						nc.Close()
					}
				})
			}
			clients.Wait()
			require.Less(t, refused.Load(), int64(resets/100), "connects that failed")
			require.True(t, eventually(func() bool { return d.NumberOfConnections() == 0 }))
			require.Zero(t, orderly.Load(), "%+v", d.Stats())
		})
	}
}
