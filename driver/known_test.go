package driver_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func TestWithUnreadComesFirst(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	br := bufio.NewReaderSize(near, 16)
	require.Same(t, near, driver.WithUnread(near, br), "nothing is unread")

	go func() {
		_, _ = io.WriteString(far, "taken, unread, ")
		_, _ = io.WriteString(far, "and the rest")
		far.Close()
	}()
	taken := make([]byte, len("taken, "))
	_, err := io.ReadFull(br, taken)
	require.NoError(t, err)
	nc := driver.WithUnread(near, br)
	rest, err := io.ReadAll(nc)
	require.NoError(t, err)
	require.Equal(t, "unread, and the rest", string(rest))

	d, err := driver.New(driver.Config{})
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	_, err = d.Adopt(nc)
	require.ErrorContains(t, err, "is not a *net.TCPConn")
	_, err = near.Write([]byte("x"))
	require.ErrorIs(t, err, io.ErrClosedPipe, "Adopt owns what it refuses")
}

// TestWithUnreadIsCopied: the buffer may go on to somebody else, as that of an http.Server does.
func TestWithUnreadIsCopied(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	require.NoError(t, far.Close())
	br := bufio.NewReader(strings.NewReader("unread"))
	_, err := br.Peek(6)
	require.NoError(t, err)
	nc := driver.WithUnread(near, br)
	br.Reset(strings.NewReader("others"))
	_, err = br.Peek(6)
	require.NoError(t, err)
	got, err := io.ReadAll(nc)
	require.NoError(t, err)
	require.Equal(t, "unread", string(got))
}

func TestWithRemoteAddr(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	require.NoError(t, far.Close())
	player := netip.MustParseAddrPort("203.0.113.1:1")
	require.Same(t, near, driver.WithRemoteAddr(near, netip.AddrPort{}), "nothing is known")
	br := bufio.NewReader(strings.NewReader("unread"))
	_, err := br.Peek(6)
	require.NoError(t, err)
	for _, nc := range []net.Conn{
		driver.WithRemoteAddr(near, player),
		driver.WithUnread(driver.WithRemoteAddr(near, player), br),
		driver.WithRemoteAddr(driver.WithUnread(near, br), player),
		driver.WithRemoteAddr(driver.WithRemoteAddr(near, netip.MustParseAddrPort("192.0.2.1:1")), player),
	} {
		require.Equal(t, player, nc.RemoteAddr().(*net.TCPAddr).AddrPort())
		require.Equal(t, near.LocalAddr(), nc.LocalAddr())
	}
}
