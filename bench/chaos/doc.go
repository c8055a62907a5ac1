// Package chaos has the tests that do to drivers what networks and peers do to them on bad days: fault-injecting proxies and lossy
// wires between driver and driver, and attackers in processes of their own. It is a module of its own, so that nobody inherits what it
// imports. See docs/reliability.md.
package chaos
