// Package drivertest is the conformance suite of driver.Driver, in the spirit of golang.org/x/net/nettest: whoever
// implements the interface runs it over the implementation, and what passes can take the place of driver.Stream.
//
//	func TestConformance(t *testing.T) {
//		drivertest.Run(t, func(cfg driver.Config) (driver.Driver, error) { return mydriver.New(cfg) })
//	}
package drivertest

import (
	"testing"

	"gridstream/driver"
)

// Run runs the suite: every property is a subtest of its own, named Theme/Property, so that -run finds it.
//
// newDriver makes a driver that is not initialized, with exactly the given Config. It is called several times in each
// subtest, from the test's goroutine, and both ends of all connections are drivers that it made, so that what they made
// can talk to one another: for a secure implementation it returns a wrapper whose Initialize calls InitializeSecurity; see Secured.
//
// What an implementation must provide beyond the interface's documentation:
//   - Every field of Config is honoured, Framing included: the hostile peers of the suite are drivers with a framing of their own.
//   - Bind.Address of the loopback network, and "::1" where the host has it, with Port 0.
//   - Adopt and StartListenOn take the *net.TCPConn of a net.Listener, and what driver.WithUnread makes of it. A plain driver's Adopt
//     also takes what Hijack returned.
//   - A ConnStats.Paused that tells whether a connection is not read from, and counters as documented.
//
// Subtests run over real sockets, one after the other; each waits for conditions with a generous deadline, and passes no sooner or
// later by the speed of the machine. After each, every driver that it made is closed, the events that were seen must make
// sense (Established once, then Disconnected once, nothing after Close), and no goroutine and (where /proc/self/fd exists) no
// descriptor may be left. Therefore nothing else may run in the process meanwhile: the caller must not be parallel. With
// testing.Short the amounts of data are a tenth.
func Run(t *testing.T, newDriver func(driver.Config) (driver.Driver, error)) {
	run(t, suite{newServer: newDriver, newClient: newDriver})
}

// RunMixed is Run with two implementations: most drivers that connect are newClient's, all others newServer's. The amounts of data
// are a tenth.
func RunMixed(t *testing.T, newServer, newClient func(driver.Config) (driver.Driver, error)) {
	run(t, suite{newServer: newServer, newClient: newClient, mixed: true})
}

func run(t *testing.T, s suite) {
	s.secure = warmUp(t, s.newServer, s.newClient)
	for _, theme := range []struct {
		name  string
		tests []property
	}{
		{"Lifecycle", lifecycleProperties()},
		{"Wrong", wrongUseProperties()},
		{"GridMate", gridMateProperties()},
		{"Order", orderProperties()},
		{"Closing", closingProperties()},
		{"Backpressure", backpressureProperties()},
		{"Receive", receiveProperties()},
		{"Events", eventProperties()},
		{"Reasons", reasonProperties()},
		{"Limits", limitProperties()},
		{"Addresses", addressProperties()},
		{"Wire", wireProperties()},
		{"Group", groupProperties()},
		{"Stats", statsProperties()},
		{"Adopt", adoptProperties()},
		{"Hijack", hijackProperties()},
		{"Proxy", proxyProperties()},
		{"Shutdown", shutdownProperties()},
		{"Handles", handleProperties()},
		{"Concurrency", concurrencyProperties()},
		{"Sequences", sequenceProperties()},
	} {
		t.Run(theme.name, func(t *testing.T) {
			for _, p := range theme.tests {
				t.Run(p.name, func(t *testing.T) { runProperty(t, s, p) })
			}
		})
	}
}

// property is one subtest.
type property struct {
	name string
	run  func(s *suite)
}
