package driver_test

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func TestConfigZeroValue(t *testing.T) {
	cfg, err := driver.Config{}.WithDefaults()
	require.NoError(t, err)
	require.NotNil(t, cfg.Logger)
	cfg.Logger.Error("goes nowhere")
	cfg.Logger = nil
	require.Equal(t, driver.Config{
		MaxPacketSize:      65535,
		InboundBufferSize:  64 << 10,
		OutboundBufferSize: 64 << 10,
		Framing:            driver.LengthPrefix16BE,
		EventLoops:         runtime.GOMAXPROCS(0),
		Dispatch:           driver.DispatchOnLoop,
		ConnectTimeout:     10 * time.Second,
		HandshakeTimeout:   10 * time.Second,
		StallTimeout:       30 * time.Second,
		LingerTimeout:      5 * time.Second,
		ProxyTimeout:       5 * time.Second,
		SlowConsumer:       driver.RejectSend,
		HandshakeWorkers:   runtime.GOMAXPROCS(0),
		NoDelay:            driver.NoDelayOn,
	}, cfg, "MaxConnections, LoginTimeout, IdleTimeout and the limits stay 0")
}

// TestMaxConnectionsLeavesRoomForTheLoops, which have eight descriptors each.
func TestMaxConnectionsLeavesRoomForTheLoops(t *testing.T) {
	most := func(loops int) int {
		d, err := driver.New(driver.Config{EventLoops: loops})
		require.NoError(t, err)
		defer d.Close()
		return d.MaxNumConnections()
	}
	require.Equal(t, most(1)-8*8, most(9))
}

func TestConfigKeepsWhatIsSet(t *testing.T) {
	set := driver.Config{
		MaxConnections:      1,
		MaxPacketSize:       2,
		InboundBufferSize:   3,
		OutboundBufferSize:  4,
		Framing:             driver.Varint,
		EventLoops:          5,
		Dispatch:            driver.DispatchOnUpdate,
		Logger:              slog.Default(),
		ConnectTimeout:      6,
		HandshakeTimeout:    7,
		LoginTimeout:        8,
		IdleTimeout:         9,
		StallTimeout:        10,
		LingerTimeout:       11,
		MaxConnectionsPerIP: 12,
		PacketsPerSecond:    13,
		BytesPerSecond:      14,
		ShutdownSpread:      16,
		TrustedProxies:      []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		ProxyTimeout:        17,
		SlowConsumer:        driver.DisconnectSlow,
		HandshakeWorkers:    15,
		NoDelay:             driver.NoDelayOff,
	}
	cfg, err := set.WithDefaults()
	require.NoError(t, err)
	require.Equal(t, set, cfg)
	again, err := cfg.WithDefaults()
	require.NoError(t, err)
	require.Equal(t, cfg, again)
}

// smallPackets is a framing whose packets have at most 100 bytes.
type smallPackets struct{ driver.Framing }

func (smallPackets) MaxPacketSize() int { return 100 }

func TestConfigMaxPacketSizeIsWithinTheFramings(t *testing.T) {
	for _, v := range []struct {
		name      string
		framing   driver.Framing
		set, want int
	}{
		{"default of a small one", smallPackets{driver.LengthPrefix16BE}, 0, 100},
		{"the most of a small one", smallPackets{driver.LengthPrefix16BE}, 100, 100},
		{"default of a large one", driver.LengthPrefix32LE, 0, 65535},
		{"the most of a large one", driver.LengthPrefix32LE, math.MaxInt32, math.MaxInt32},
		{"the most of GridMate's", nil, 65535, 65535},
	} {
		cfg, err := driver.Config{Framing: v.framing, MaxPacketSize: v.set}.WithDefaults()
		require.NoError(t, err, v.name)
		require.Equal(t, v.want, cfg.MaxPacketSize, v.name)
	}
	_, err := driver.Config{MaxPacketSize: 65536}.WithDefaults()
	require.EqualError(t, err, "Config.MaxPacketSize 65536 is more than the 65535 that Config.Framing can express")
}

func TestConfigErrorNamesEveryFieldThatIsWrong(t *testing.T) {
	bad := map[string]driver.Config{
		"Config.MaxConnections -1 is negative":       {MaxConnections: -1},
		"Config.MaxPacketSize -2 is negative":        {MaxPacketSize: -2},
		"Config.InboundBufferSize -3 is negative":    {InboundBufferSize: -3},
		"Config.OutboundBufferSize -4 is negative":   {OutboundBufferSize: -4},
		"Config.EventLoops -5 is negative":           {EventLoops: -5},
		"Config.ConnectTimeout -6ns is negative":     {ConnectTimeout: -6},
		"Config.HandshakeTimeout -7ns is negative":   {HandshakeTimeout: -7},
		"Config.LoginTimeout -8ns is negative":       {LoginTimeout: -8},
		"Config.IdleTimeout -9ns is negative":        {IdleTimeout: -9},
		"Config.StallTimeout -10ns is negative":      {StallTimeout: -10},
		"Config.LingerTimeout -11ns is negative":     {LingerTimeout: -11},
		"Config.MaxConnectionsPerIP -12 is negative": {MaxConnectionsPerIP: -12},
		"Config.PacketsPerSecond -13 is negative":    {PacketsPerSecond: -13},
		"Config.BytesPerSecond -14 is negative":      {BytesPerSecond: -14},
		"Config.HandshakeWorkers -15 is negative":    {HandshakeWorkers: -15},
		"Config.Dispatch 2 is unknown":               {Dispatch: driver.DispatchOnUpdate + 1},
		"Config.Dispatch -1 is unknown":              {Dispatch: -1},
		"Config.SlowConsumer 2 is unknown":           {SlowConsumer: driver.DisconnectSlow + 1},
		"Config.NoDelay 2 is unknown":                {NoDelay: driver.NoDelayOff + 1},
	}
	for want, cfg := range bad {
		_, err := cfg.WithDefaults()
		require.EqualError(t, err, want)
	}

	_, err := driver.Config{EventLoops: -1, IdleTimeout: -time.Second, Dispatch: 9, MaxPacketSize: 1 << 20}.WithDefaults()
	for _, field := range []string{"EventLoops", "IdleTimeout", "Dispatch", "MaxPacketSize"} {
		require.ErrorContains(t, err, "Config."+field)
	}
}

func TestNamesOfSettings(t *testing.T) {
	for want, v := range map[string]fmt.Stringer{
		"IPv4": driver.IPv4, "IPv6": driver.IPv6, "DualStack": driver.DualStack, "Family(3)": driver.DualStack + 1,
		"DispatchOnLoop": driver.DispatchOnLoop, "DispatchOnUpdate": driver.DispatchOnUpdate, "Dispatch(-1)": driver.DispatchOnLoop - 1,
		"RejectSend": driver.RejectSend, "DisconnectSlow": driver.DisconnectSlow, "SlowConsumer(2)": driver.DisconnectSlow + 1,
		"NoDelayOn": driver.NoDelayOn, "NoDelayOff": driver.NoDelayOff, "NoDelay(9)": driver.NoDelay(9),
	} {
		require.Equal(t, want, v.String())
	}
}

func TestBindAddrPort(t *testing.T) {
	for _, v := range []struct {
		bind    driver.Bind
		want    string
		network string
	}{
		{driver.Bind{}, "0.0.0.0:0", "tcp4"},
		{driver.Bind{Port: 4433}, "0.0.0.0:4433", "tcp4"},
		{driver.Bind{Address: "127.0.0.1", Port: 4433}, "127.0.0.1:4433", "tcp4"},
		{driver.Bind{Address: "::ffff:127.0.0.1"}, "127.0.0.1:0", "tcp4"},
		{driver.Bind{Family: driver.IPv6}, "[::]:0", "tcp6"},
		{driver.Bind{Family: driver.IPv6, Address: "::1", Port: 65535}, "[::1]:65535", "tcp6"},
		{driver.Bind{Family: driver.IPv6, Address: "fe80::1%eth0"}, "[fe80::1%eth0]:0", "tcp6"},
		{driver.Bind{Family: driver.DualStack}, "[::]:0", "tcp"},
		{driver.Bind{Family: driver.DualStack, Address: "127.0.0.1"}, "127.0.0.1:0", "tcp"},
		{driver.Bind{Family: driver.DualStack, Address: "::1"}, "[::1]:0", "tcp"},
	} {
		got, err := v.bind.AddrPort()
		require.NoError(t, err, "%+v", v.bind)
		require.Equal(t, netip.MustParseAddrPort(v.want), got, "%+v", v.bind)
		require.Equal(t, v.network, v.bind.Network(), "%+v", v.bind)
	}
}

func TestBindErrorNamesTheFieldThatIsWrong(t *testing.T) {
	for want, bind := range map[string]driver.Bind{
		"Bind.Family 3 is none of IPv4, IPv6, DualStack":                           {Family: driver.DualStack + 1},
		"Bind.Family -1 is none of IPv4, IPv6, DualStack":                          {Family: -1},
		"Bind.ReceiveBufferSize -1 is negative":                                    {ReceiveBufferSize: -1},
		"Bind.SendBufferSize -2 is negative":                                       {SendBufferSize: -2},
		`Bind.Address "localhost" is not a numeric IP address`:                     {Address: "localhost"},
		`Bind.Address "127.0.0.1:80" is not a numeric IP address`:                  {Address: "127.0.0.1:80"},
		`Bind.Address "::1" is not an IPv4 address, and Bind.Family is IPv4`:       {Address: "::1"},
		`Bind.Address "127.0.0.1" is not an IPv6 address, and Bind.Family is IPv6`: {Family: driver.IPv6, Address: "127.0.0.1"},
	} {
		got, err := bind.AddrPort()
		require.EqualError(t, err, want)
		require.False(t, got.IsValid())
	}
}

func TestFamilyString(t *testing.T) {
	for family, want := range map[driver.Family]string{
		driver.IPv4: "IPv4", driver.IPv6: "IPv6", driver.DualStack: "DualStack", 3: "Family(3)", -1: "Family(-1)",
	} {
		require.Equal(t, want, family.String())
	}
}
