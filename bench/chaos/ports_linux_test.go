package chaos_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/bench/chaos/kind"
	"gridstream/driver"
)

const (
	portsFile  = "/proc/sys/net/ipv4/ip_local_port_range"
	fewPorts   = "20000\t20003"
	fewPortsIs = 4
)

// TestNoPorts: ConnectTo more often than there are ports to connect from.
func TestNoPorts(t *testing.T) {
	if !isolated(t, network{commands: []string{"ip"}, files: []string{portsFile}}) {
		return
	}
	out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput()
	require.NoError(t, err, "%s", out)
	allPorts, err := os.ReadFile(portsFile)
	require.NoError(t, err)
	if err := os.WriteFile(portsFile, allPorts, 0); err != nil {
		t.Skipf("the ports cannot be set: %v", err)
	}
	setPorts := func(t *testing.T, ports string) {
		t.Helper()
		require.NoError(t, os.WriteFile(portsFile, []byte(ports), 0))
	}
	matrix(t, func(t *testing.T, server, client kind.Kind) {
		a := newArena(t, server, client, local, driver.Config{})
		t.Cleanup(func() { setPorts(t, string(allPorts)) })
		calm := a.meanwhile(driver.Config{}, local)
		elsewhere := a.newSide(server, driver.Config{OnPacket: a.toServer}, local)
		require.NoError(t, elsewhere.StartListen(0))
		var lucky, unlucky []*portless
		for range fewPortsIs {
			lucky = append(lucky, a.portless())
		}
		for range 2 {
			unlucky = append(unlucky, a.portless())
		}
		setPorts(t, fewPorts)

		var links []*link
		for _, c := range lucky {
			l := a.connect(c.side, a.server.addr(local))
			require.NotNil(t, l, "there is a port")
			require.True(t, a.talk(l, 10))
			links = append(links, l)
		}
		const tries = 20
		open := len(descriptors())
		for range tries {
			for _, c := range unlucky {
				require.Nil(t, a.connect(c.side, a.server.addr(local)), "there is no port")
				reason := c.reason()
				require.ErrorIs(t, reason, syscall.EADDRNOTAVAIL)
				require.Equal(t, driver.ErrSocketConnect, driver.CodeOf(reason))
				require.False(t, c.IsConnectedTo(a.server.addr(local)))
			}
		}
		for _, c := range unlucky {
			c.accounts(a, tries)
		}
		a.await("the descriptors of those that failed", func() bool { return len(descriptors()) <= open })
		atRest(t)
		for _, l := range links {
			require.True(t, a.talk(l, 50), "%v", l.client.end(l.cc))
		}
		// The ports are taken for one destination only.
		require.NotNil(t, a.connect(unlucky[0].side, elsewhere.addr(local)))

		for i, byServer := range []bool{true, false} { // where the client ends, its port comes back after a second
			a.ends(links[i], byServer)
			var l *link
			failed := tries
			a.await("the port", func() bool {
				if l = a.connect(unlucky[i].side, a.server.addr(local)); l == nil {
					failed++
				}
				return l != nil
			})
			require.True(t, a.talk(l, 50), "%v", l.client.end(l.cc))
			unlucky[i].accounts(a, failed)
		}
		for _, l := range links[2:] {
			require.True(t, a.talk(l, 10), "%v", l.client.end(l.cc))
		}
		calm()
	})
}

// portless is a client, and why its last ConnectTo failed.
type portless struct {
	*side
	failures chan error // as many as it is asked for
}

func (a *arena) portless() *portless {
	a.Helper()
	c := &portless{side: a.client(driver.Config{}, local), failures: make(chan error, 1)}
	c.Events().Subscribe(driver.SubscriberFuncs{Disconnected: func(ev driver.Event) {
		if ev.Conn == nil {
			select {
			case <-c.failures: // the one before
			default:
			}
			c.failures <- ev.Reason
		}
	}})
	return c
}

// reason waits for it: whoever subscribed before has it already.
func (c *portless) reason() error { return <-c.failures }

// accounts looks that each ConnectTo that failed was told once.
func (c *portless) accounts(a *arena, failed int) {
	a.Helper()
	require.Equal(a, failed, c.ledger.Failed())
	require.EqualValues(a, failed, c.Stats().ConnectsFailed)
	require.NoError(a, c.ledger.Err())
}
