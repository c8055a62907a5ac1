// Package driver is a TCP stream socket driver for game servers: it carries packets between very many connections, mostly idle, and the
// game. It is GridMate's StreamSocketDriver, on event loops.
//
//	d, err := driver.New(driver.Config{OnPacket: …})  // or NewSecure, over TLS
//	d.Events().Subscribe(…)                          // who comes, who goes and why
//	err = d.Initialize(driver.Bind{Port: 7777})      // a SecureStream: InitializeSecurity
//	err = d.StartListen(0)                           // or ConnectTo, or both
//	…
//	err = d.Shutdown(ctx)                            // delivers what is queued; Close does not
//
// Packets come to Config.OnPacket, on the connection's event loop, which a callback must not block; or, where that is nil, they wait for
// Receive. Events come on the loop too, or with DispatchOnUpdate when the game calls Update. [Conn.Send] and all other methods may be called
// from any goroutine; Send never blocks, and fails where a peer does not read and its bounded buffer is full.
//
// Package stdnet has the same driver on package net, with a goroutine for each connection. The README has whole programs, docs/ the rest:
// architecture, ownership, tls, operations, tuning, reliability, migration.
//
// [NewOn], [NewSecureOn], [Config.WithDefaults] and the Dispatch methods of [EventBus] are for implementations of Driver.
package driver
