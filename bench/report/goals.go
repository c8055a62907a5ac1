package main

import "fmt"

// goal is what a figure is meant to be.
type goal struct {
	what    string
	base    string // of the benchmark
	unit    string
	against string // the server whose figure to divide by; empty: the figure itself
	atLeast float64
	atMost  float64
}

const (
	idlePlain = "IdleMemory/conns=18000/tls=off/after=packet"
	idleTLS   = "IdleMemory/conns=5000/tls=on/after=packet"
	crowded   = "MostlyIdle/idle=18000/active=200"
	bursts    = "Broadcast/conns=10000/burst=30/size=64"
	lockstep  = "Broadcast/conns=10000/lockstep/size=64"
	connects  = "ConnectStorm/conns=10000"
	login     = "LoginStorm/established=200/logins=64"
)

var goals = []goal{
	{what: "idle, plain: heap and stack", base: idlePlain, unit: "B/conn", atMost: 1000},
	{what: "idle, plain ÷ stdlib with two goroutines", base: idlePlain, unit: "B/conn", against: "stdlib-two-goroutines", atMost: 0.1},
	{what: "idle, TLS 1.3: heap and stack", base: idleTLS, unit: "B/conn", atMost: 7600},
	{what: "idle, TLS 1.3 ÷ stdlib with one goroutine", base: idleTLS, unit: "B/conn", against: "stdlib-inline", atMost: 0.5},
	{what: "18,000 idle, 200 active: rate ÷ stdnet", base: crowded, unit: "msgs/s", against: "stdnet", atLeast: 1.2},
	{what: "18,000 idle, 200 active: p99 ÷ stdnet", base: crowded, unit: "p99-ns", against: "stdnet", atMost: 0.45},
	{what: "18,000 idle, 200 active: CPU ÷ stdnet", base: crowded, unit: "cpu-µs/op", against: "stdnet", atMost: 0.8},
	echoGoal(100, 1, "stdnet", 0.97), echoGoal(1000, 1, "stdnet", 1.1), echoGoal(10_000, 1, "stdnet", 1.05), echoGoal(18_000, 1, "stdnet", 1.05),
	echoGoal(100, 1, "gnet", 0.97), echoGoal(1000, 1, "gnet", 0.97), echoGoal(10_000, 1, "gnet", 0.97), echoGoal(18_000, 1, "gnet", 0.97),
	echoGoal(1000, 16, "stdnet", 1.5), echoGoal(1000, 16, "gnet", 1),
	{what: "broadcast to 10,000 in bursts: rate ÷ stdnet", base: bursts, unit: "deliveries/s", against: "stdnet", atLeast: 1.25},
	{what: "broadcast to 10,000 in bursts: rate ÷ gnet's AsyncWrite for each", base: bursts, unit: "deliveries/s", against: "gnet", atLeast: 12},
	{what: "broadcast to 10,000 in lockstep: rate ÷ stdnet", base: lockstep, unit: "deliveries/s", against: "stdnet", atLeast: 1.1},
	{what: "broadcast to 10,000 in lockstep: CPU ÷ stdnet", base: lockstep, unit: "cpu-µs/op", against: "stdnet", atMost: 0.8},
	{what: "connects: CPU ÷ stdnet", base: connects, unit: "cpu-µs/op", against: "stdnet", atMost: 0.75},
	{what: "connects: rate ÷ stdnet", base: connects, unit: "conns/s", against: "stdnet", atLeast: 1},
	handshakeGoal("ecdsa"), handshakeGoal("rsa2048"), handshakeGoal("resumed"),
	{what: "echo over TLS, 1,000 connections: rate ÷ stdnet", base: "Echo/conns=1000/depth=1/size=64/tls=on", unit: "msgs/s", against: "stdnet", atLeast: 1.1},
	{what: "p99 of 200 players during a storm of logins ÷ stdnet", base: login, unit: "p99-ns", against: "stdnet", atMost: 0.5},
}

func echoGoal(conns, depth int, against string, atLeast float64) goal {
	return goal{
		what:    fmt.Sprintf("echo, %s connections, depth %d: rate ÷ %s", thousands(conns), depth, against),
		base:    fmt.Sprintf("Echo/conns=%d/depth=%d/size=64/tls=off", conns, depth),
		unit:    "msgs/s",
		against: against,
		atLeast: atLeast,
	}
}

func handshakeGoal(key string) goal {
	return goal{what: "handshakes, " + key + ": rate ÷ stdnet", base: "Handshake/key=" + key, unit: "handshakes/s", against: "stdnet", atLeast: 1}
}

// measured is the goal's figure.
func (r *resultSet) measured(g goal) spread {
	if g.against == "" {
		return r.value(g.base, "loop", g.unit)
	}
	return r.ratio(g.base, "loop", g.against, g.unit)
}

func (g goal) bound() string {
	if g.atMost > 0 {
		return "≤ " + figure(g.atMost)
	}
	return "≥ " + figure(g.atLeast)
}

func (g goal) met(s spread) bool {
	if g.atMost > 0 {
		return s.median <= g.atMost
	}
	return s.median >= g.atLeast
}
