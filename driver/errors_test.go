package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// resultCodes are GridMate's, in its order.
var resultCodes = []driver.ResultCode{
	driver.OK,
	driver.ErrSocketCreate,
	driver.ErrSocketListen,
	driver.ErrSocketClose,
	driver.ErrSocketMakeNonblock,
	driver.ErrSocketBind,
	driver.ErrSocketSockOpt,
	driver.ErrSocketConnect,
	driver.ErrSocketAccept,
	driver.ErrSecureConfig,
	driver.ErrSecureCreate,
	driver.ErrSecureCert,
	driver.ErrSecurePKey,
	driver.ErrSecureCACert,
	driver.ErrSend,
	driver.ErrSendAddressNotBound,
	driver.ErrReceive,
}

func TestResultCodesAreGridMates(t *testing.T) {
	texts := make(map[string]bool)
	for i, code := range resultCodes {
		require.EqualValues(t, i, code)
		require.Regexp(t, "^driver: [a-z]", code.Error())
		require.False(t, texts[code.Error()], "%v is there twice", code)
		texts[code.Error()] = true
	}
	require.EqualError(t, driver.ErrSocketBind, "driver: socket bind")
	require.EqualError(t, driver.ResultCode(17), "driver: result code 17")
	require.EqualError(t, driver.ResultCode(1<<32-1), "driver: result code 4294967295")
}

func TestCodeOf(t *testing.T) {
	sent := &driver.Error{Op: "Send", Code: driver.ErrSend, Err: driver.ErrOutboundFull}
	for _, v := range []struct {
		name string
		err  error
		want driver.ResultCode
	}{
		{"nil", nil, driver.OK},
		{"a code", driver.ErrReceive, driver.ErrReceive},
		{"a code, wrapped", fmt.Errorf("login: %w", driver.ErrSecureCert), driver.ErrSecureCert},
		{"an Error", sent, driver.ErrSend},
		{"an Error, wrapped", fmt.Errorf("login: %w", sent), driver.ErrSend},
		{"an Error, joined", errors.Join(io.EOF, sent), driver.ErrSend},
		{"an Error in an Error", &driver.Error{Code: driver.ErrSocketClose, Err: sent}, driver.ErrSocketClose},
		{"none", io.EOF, driver.ErrSocketCreate},
	} {
		require.Equal(t, v.want, driver.CodeOf(v.err), v.name)
	}
}

func TestErrorMatchesItsCodeAndItsCause(t *testing.T) {
	taken := os.NewSyscallError("bind", syscall.EADDRINUSE)
	err := fmt.Errorf("zone: %w", &driver.Error{Op: "Initialize", Code: driver.ErrSocketBind, Err: taken})
	require.ErrorIs(t, err, driver.ErrSocketBind)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NotErrorIs(t, err, driver.ErrSocketListen)
	require.NotErrorIs(t, err, net.ErrClosed)

	var e *driver.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "Initialize", e.Op)
	var call *os.SyscallError
	require.ErrorAs(t, err, &call)
	var code driver.ResultCode
	require.ErrorAs(t, err, &code)
	require.Equal(t, driver.ErrSocketBind, code)

	causeless := &driver.Error{Op: "Send", Code: driver.ErrSend}
	require.ErrorIs(t, causeless, driver.ErrSend)
	require.NotErrorIs(t, causeless, driver.ErrOutboundFull)
	require.Len(t, causeless.Unwrap(), 1)
}

func TestErrorMessage(t *testing.T) {
	peer := netip.MustParseAddrPort("[2001:db8::1]:4433")
	for want, err := range map[string]error{
		"driver: Send [2001:db8::1]:4433: outbound buffer full": &driver.Error{
			Op: "Send", Code: driver.ErrSend, Address: peer, Err: driver.ErrOutboundFull},
		"driver: Send [2001:db8::1]:4433: send address not bound": &driver.Error{
			Op: "Send", Code: driver.ErrSendAddressNotBound, Address: peer},
		"driver: New: Config.EventLoops -1 is negative": &driver.Error{
			Op: "New", Code: driver.ErrSocketCreate, Err: errors.New("Config.EventLoops -1 is negative")},
		"driver: Receive: receive": &driver.Error{Op: "Receive", Code: driver.ErrReceive},
	} {
		require.EqualError(t, err, want)
	}
}

// sentinels are all of the package's errors that are no codes, and what of the standard library's they match.
var sentinels = map[error]error{
	driver.ErrPeerClosed:         io.EOF,
	driver.ErrDisconnected:       net.ErrClosed,
	driver.ErrIdleTimeout:        os.ErrDeadlineExceeded,
	driver.ErrLoginTimeout:       os.ErrDeadlineExceeded,
	driver.ErrHandshakeTimeout:   os.ErrDeadlineExceeded,
	driver.ErrConnectTimeout:     os.ErrDeadlineExceeded,
	driver.ErrStallTimeout:       os.ErrDeadlineExceeded,
	driver.ErrProtocol:           nil,
	driver.ErrSlowConsumer:       nil,
	driver.ErrRateLimited:        nil,
	driver.ErrPanic:              nil,
	driver.ErrHijacked:           nil,
	driver.ErrShutdown:           net.ErrClosed,
	driver.ErrOutboundFull:       nil,
	driver.ErrNotInitialized:     nil,
	driver.ErrAlreadyInitialized: nil,
	driver.ErrListening:          nil,
	driver.ErrNotListening:       nil,
	driver.ErrConnecting:         nil,
	driver.ErrConnected:          nil,
	driver.ErrNotConnected:       nil,
	driver.ErrTooManyConnections: nil,
	driver.ErrEmptyPacket:        nil,
	driver.ErrPacketTooLarge:     nil,
	driver.ErrDriverClosed:       net.ErrClosed,
	driver.ErrConnClosed:         net.ErrClosed,
}

func TestReasonsMatchTheStandardLibrarys(t *testing.T) {
	for reason, as := range sentinels {
		require.Regexp(t, "^driver: ", reason.Error())
		inError := &driver.Error{Op: "Send", Code: driver.ErrSend, Err: fmt.Errorf("because: %w", reason)}
		require.ErrorIs(t, inError, reason)
		for _, std := range []error{io.EOF, net.ErrClosed, os.ErrDeadlineExceeded} {
			require.Equal(t, std == as, errors.Is(reason, std), "%v is %v", reason, std)
			require.Equal(t, std == as, errors.Is(inError, std), "%v is %v", inError, std)
		}
		for other := range sentinels {
			require.Equal(t, other == reason, errors.Is(reason, other), "%v is %v", reason, other)
		}
		require.NotErrorIs(t, reason, nil)
	}
}

func TestErrorTimeout(t *testing.T) {
	type timeout interface{ Timeout() bool }
	for reason, as := range sentinels {
		require.Equal(t, as == os.ErrDeadlineExceeded, reason.(timeout).Timeout(), "%v", reason)
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unanswered := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}
	for _, v := range []struct {
		cause error
		want  bool
	}{
		{nil, false},
		{driver.ErrOutboundFull, false},
		{context.Canceled, false},
		{refused, false},
		{driver.ErrConnectTimeout, true},
		{fmt.Errorf("%w: %w", driver.ErrPanic, driver.ErrIdleTimeout), true},
		{os.ErrDeadlineExceeded, true},
		{context.DeadlineExceeded, true},
		{unanswered, true},
	} {
		require.Equal(t, v.want, (&driver.Error{Op: "ConnectTo", Err: v.cause}).Timeout(), "%v", v.cause)
	}
}
