package driver_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// clientHello is the first record of a client of crypto/tls.
func clientHello(t testing.TB) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}()
	head := make([]byte, 5)
	_, err := io.ReadFull(ours, head)
	require.NoError(t, err)
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err = io.ReadFull(ours, body)
	require.NoError(t, err)
	require.NoError(t, ours.Close())
	<-done
	return append(head, body...)
}

// liveBytes are those of heap objects and stacks in use.
func liveBytes() int {
	for range 3 { // a sync.Pool keeps what it has over one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// 1,000 handshakes that are begun and not gone on with cost an established connection little, hold no goroutine each, and are gone
// at the timeout. runtime.NumGoroutine counts a handshake's coroutine: there is one where a ClientHello was whole.
func TestHalfOpenHandshakes(t *testing.T) {
	const (
		each    = 200
		timeout = 3 * time.Second
	)
	hello := clientHello(t)
	garbage := make([]byte, 2000)
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	garbage[0] = 'G' // no record's type
	kinds := []struct {
		name     string
		sends    []byte
		trickles bool // hello, a byte a second
		answered bool
	}{
		{name: "silent"},
		{name: "silent after a few bytes", sends: hello[:7]},
		{name: "a byte a second", trickles: true},
		{name: "garbage", sends: garbage},
		{name: "ClientHello and then nothing", sends: hello, answered: true},
	}
	total := each * len(kinds)

	logged := newHandshakeLog()
	server, events := newSecureServer(t, driver.Config{
		OnPacket:         func(c driver.Conn, p []byte) { _ = c.Send(p) },
		HandshakeTimeout: timeout,
		LingerTimeout:    500 * time.Millisecond, // what is refused at once has so long to take the alert
		Logger:           slog.New(logged),
	}, developmentDesc())
	if server.MaxNumConnections() < total+100 {
		t.Skipf("room for %d connections", server.MaxNumConnections())
	}
	client, _ := newSecureDriver(t, driver.Config{}, developmentDesc())
	clientConn, _ := connect(t, client, server)
	var trips []time.Duration
	echo := func() {
		t.Helper()
		began := time.Now()
		require.NoError(t, clientConn.Send([]byte("ping")))
		packet, _ := receive(t, client)
		require.Equal(t, "ping", string(packet))
		trips = append(trips, time.Since(began))
	}
	echo()

	goroutines, bytes := runtime.NumGoroutine(), liveBytes()
	began := time.Now()
	var conns, trickling, answered []net.Conn
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	for i := range total {
		kind := kinds[i%len(kinds)]
		nc, err := net.Dial("tcp", addrOf(server).String())
		require.NoError(t, err)
		conns = append(conns, nc)
		_, err = nc.Write(kind.sends)
		require.NoError(t, err)
		if kind.trickles {
			trickling = append(trickling, nc)
		}
		if kind.answered {
			answered = append(answered, nc)
		}
		if i%10 == 0 {
			echo()
		}
	}
	for _, nc := range answered { // the step for the ClientHello is done
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(patience)))
		_, err := io.ReadFull(nc, make([]byte, 5))
		require.NoError(t, err)
	}
	t.Logf("%d handshakes begun after %v: %d goroutines more", total, time.Since(began), runtime.NumGoroutine()-goroutines)
	require.LessOrEqual(t, runtime.NumGoroutine()-goroutines, each+10, "one coroutine where a ClientHello is whole, nothing for the others")

	for next, at := time.Now(), 0; server.Stats().HandshakesFailed < uint64(total); {
		if time.Since(began) > timeout+patience {
			t.Fatalf("%d of %d handshakes ended", server.Stats().HandshakesFailed, total)
		}
		if time.Now().After(next) && at < len(hello)-1 {
			for _, nc := range trickling {
				_, _ = nc.Write(hello[at : at+1])
			}
			at++
			next = time.Now().Add(time.Second)
		}
		echo()
		time.Sleep(time.Millisecond)
	}
	ended := time.Since(began)
	slices.Sort(trips)
	t.Logf("all gone after %v; %d round trips beside them: p50 %v, p99 %v, longest %v", ended, len(trips),
		trips[len(trips)/2], trips[len(trips)*99/100], trips[len(trips)-1])
	require.Less(t, trips[len(trips)*99/100], timeout/4)
	require.GreaterOrEqual(t, ended, timeout)

	var timedOut, notTLS int
	for _, err := range logged.errs {
		var header tls.RecordHeaderError
		switch {
		case errors.Is(err, driver.ErrHandshakeTimeout):
			timedOut++
		case errors.As(err, &header):
			notTLS++
		}
	}
	require.Equal(t, 4*each, timedOut)
	require.Equal(t, each, notTLS)
	established, disconnected := events.counts()
	require.Equal(t, []int{1, 0}, []int{established, disconnected}, "the pair")
	require.Equal(t, 1, server.NumberOfConnections())
	for _, nc := range conns {
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(patience)))
		_, err := io.Copy(io.Discard, nc)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		nc.Close()
	}

	conns, trickling, answered, logged.errs, trips = nil, nil, nil, nil, trips[:0]
	eventually(t, "the coroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	more := liveBytes() - bytes
	t.Logf("%d bytes more than before", more)
	require.Less(t, more, 1<<20, "%d bytes of each connection are left", more/total)
	echo()
}

// TestHandshakeIsNotReadAhead: what a peer sends while its handshake waits for a worker stays in the kernel, but for what one read brings
// more than 36 KiB.
func TestHandshakeIsNotReadAhead(t *testing.T) {
	const ahead, oneRead = 36 << 10, 64 << 10
	here, gone := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(gone) })
	defer release()
	desc := developmentDesc()
	desc.TLSConfig = func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			close(here)
			<-gone
			return nil, nil
		}
	}
	server, _ := newSecureServer(t, driver.Config{}, desc)
	nc := dial(t, server)
	hello := clientHello(t)
	_, err := nc.Write(hello)
	require.NoError(t, err)
	<-here
	written := make(chan error, 1)
	go func() {
		_, err := nc.Write(make([]byte, 64<<20)) // more than the kernel has room for
		written <- err
	}()
	eventually(t, "that reading is paused", func() bool { return server.Stats().ReadsPaused == 1 })
	require.LessOrEqual(t, server.Stats().BytesReceived, uint64(len(hello)+ahead+oneRead))
	release()
	eventually(t, "that it is no handshake", func() bool { return server.Stats().HandshakesFailed == 1 })
	require.Error(t, <-written)
}
