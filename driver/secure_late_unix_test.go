//go:build unix

package driver_test

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// TestLateConnectionThatWasSentItsEnd: the loop comes to the end of its handshake when the client is gone, and has yet to take the ticket: so
// close_notify is behind that. What it said is heard all the same.
func TestLateConnectionThatWasSentItsEnd(t *testing.T) {
	const small = 4 << 10 // a socket's buffers, so that the ticket waits
	here, gone := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(gone) })
	bind := driver.Bind{Address: "127.0.0.1", SendBufferSize: small}
	l := newLateOn(t, bind, driver.Config{EventLoops: 1, HandshakeWorkers: 1}, func(_ driver.Conn, packet string) {
		if packet == "hold" {
			close(here)
			<-gone
		}
	})
	defer release()
	l.lets.Store(true)
	holder := tls.Client(dial(t, l), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{l.pair}})
	require.NoError(t, holder.Handshake())
	l.events.waitEstablished(t, 1)

	dialer := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) (err error) {
		controlErr := rc.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, small) })
		if controlErr != nil {
			return controlErr
		}
		return err
	}}
	raw, err := dialer.Dial("tcp", addrOf(l).String())
	require.NoError(t, err)
	defer raw.Close()
	pair := l.pair
	pair.Certificate = slices.Repeat(pair.Certificate, 60) // all of which are in the ticket
	counted := &countedConn{Conn: raw}
	client := tls.Client(counted, &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(1), // it wants tickets
	})
	before := l.Stats().BytesReceived
	require.NoError(t, client.Handshake())
	_, err = client.Write([]byte("\x00\x02hi"))
	require.NoError(t, err)
	<-l.here
	eventually(t, "that all is read", func() bool { return l.Stats().BytesReceived == before+uint64(counted.written) })

	_, err = holder.Write([]byte("\x00\x04hold"))
	require.NoError(t, err)
	<-here
	require.NoError(t, raw.(*net.TCPConn).CloseWrite())
	close(l.gone)
	eventually(t, "that the handshake is done", func() bool { return l.Stepping() == 0 })
	release()
	_, err = io.Copy(io.Discard, client)
	require.NoError(t, err) // close_notify
	require.ErrorIs(t, l.events.waitDisconnected(t, 1).Reason, io.ErrUnexpectedEOF)
	require.Equal(t, []string{"hold", "hi"}, l.packets())
}

// countedConn counts what is written.
type countedConn struct {
	net.Conn
	written int
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written += n
	return n, err
}
