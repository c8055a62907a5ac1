//go:build !race

// Under the race detector sync.Pool drops some of what it is given.

package driver_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// The claim of no allocation in the steady state, over the whole process: the loops, the flushers and the caller.

func TestEchoOfAWholePacketOnTheLoopAllocatesNothing(t *testing.T) {
	server, _ := newServer(t, driver.Config{OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }})
	nc := dial(t, server)
	frame := []byte("\x00\x0chello, world")
	answer := make([]byte, len(frame))
	roundTrip := func() {
		if _, err := nc.Write(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(nc, answer); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		roundTrip()
	}
	require.Zero(t, testing.AllocsPerRun(2000, roundTrip))
	require.Equal(t, frame, answer)
}

func TestSendToAnAddressAllocatesNothing(t *testing.T) {
	server, events := newServer(t, driver.Config{})
	nc := dial(t, server)
	to := events.waitEstablished(t, 1).Address
	packet := []byte("hello, world")
	answer := make([]byte, 2+len(packet))
	// One packet at a time: each Send wakes the flusher.
	sendAndRead := func() {
		if err := server.Send(to, packet); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(nc, answer); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		sendAndRead()
	}
	require.Zero(t, testing.AllocsPerRun(2000, sendAndRead))
	require.Equal(t, packet, answer[2:])
}

func TestReceiveAllocatesNothing(t *testing.T) {
	server, events := newServer(t, driver.Config{})
	nc := dial(t, server)
	from := events.waitEstablished(t, 1).Address
	frame := []byte("\x00\x0chello, world")
	buf := make([]byte, 64)
	receiveOne := func() {
		if _, err := nc.Write(frame); err != nil {
			t.Fatal(err)
		}
		if err := server.WaitForData(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n, addr, err := server.Receive(buf); n != 12 || addr != from || err != nil {
			t.Fatal(n, addr, err)
		}
	}
	for range 1000 {
		receiveOne()
	}
	require.Zero(t, testing.AllocsPerRun(2000, receiveOne))
}

func TestLookUpAllocatesNothing(t *testing.T) {
	server, events := newServer(t, driver.Config{})
	dial(t, server)
	addr := events.waitEstablished(t, 1).Address
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port())
	require.True(t, mapped.Addr().Is4In6())
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if !server.IsConnectedTo(addr) || !server.IsConnectedTo(mapped) {
			t.Fatal("not found")
		}
	}))
}

// TestSealingMuchReusesItsBuffers: what is queued for a while goes out as many records at once, and takes no memory that is left to the collector but
// what crypto/tls takes for each record.
func TestSealingMuchReusesItsBuffers(t *testing.T) {
	const size, rounds = 60_000, 100
	answer := make([]byte, size)
	server, _ := newSecureServer(t, driver.Config{OnPacket: func(c driver.Conn, _ []byte) { _ = c.Send(answer) }}, developmentDesc())
	nc := tls.Client(dial(t, server), &tls.Config{InsecureSkipVerify: true})
	read := make([]byte, 2+size)
	roundTrip := func() {
		_, err := nc.Write([]byte("\x00\x01x"))
		require.NoError(t, err)
		_, err = io.ReadFull(nc, read)
		require.NoError(t, err)
	}
	allocated := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	roundTrip()
	before := allocated()
	for range rounds {
		roundTrip()
	}
	require.Less(t, (allocated()-before)/rounds, uint64(size/2))
}
