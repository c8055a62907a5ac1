// Package stdnet is the driver on the standard library: a goroutine reads from each connection, another writes while there is
// something to write, and crypto/tls does the handshakes where they are read.
//
// It is the same driver as package driver's, with the same behaviour, changed in one line. It is there for systems without epoll and kqueue
// (Windows), as the reference for the event loops, and as what they are measured against. Config.EventLoops and
// Config.HandshakeWorkers mean nothing here: an idle connection costs a goroutine and a buffer, and as many handshakes run at once as there are.
// Config.OutboundBufferSize bounds what waits for the writer, which has as much again in its hands. Callbacks run on the goroutine that reads
// the connection.
package stdnet

import (
	"gridstream/driver"
	"gridstream/loop/link"
)

// Stream is driver.Stream.
type Stream = driver.Stream

// SecureStream is driver.SecureStream.
type SecureStream = driver.SecureStream

// New is driver.New on goroutines.
func New(cfg driver.Config) (*Stream, error) { return driver.NewOn(cfg, start) }

// NewSecure is driver.NewSecure on goroutines.
func NewSecure(cfg driver.Config) (*SecureStream, error) { return driver.NewSecureOn(cfg, start) }

var _ link.Start = start
