// Package tlsadapter runs TLS sessions over buffers: bytes in, bytes out, no sockets and no goroutine that waits. It is how an
// event loop speaks TLS with the unmodified crypto/tls.
//
// # Model
//
// A [Session] is a tls.Conn on an in-memory net.Conn. The two differ from a socket in what happens when there is
// nothing to read:
//
//   - During the handshake, which crypto/tls cannot interrupt and go on with, the read suspends the coroutine that the
//     handshake runs on. [Session.Step] resumes it on the goroutine of whoever has time for public-key operations.
//   - Afterwards the read fails with a temporary error, upon which crypto/tls keeps the incomplete record it has and
//     can be called again.
//
// # Who calls what
//
//	the event loop                            a pool of workers
//	--------------                            -----------------
//	if s.Feed(nil) { submit(s) }   at start
//	if s.Feed(bytes) { submit(s) } ------->   done, err := s.Step()
//	                               <-------   send s.TakeOutput(…); tell the loop done or err
//
//	on done: s.Open(nil, deliver)             what came right behind the handshake
//	on bytes: s.Open(bytes, deliver)          one goroutine: the reader
//	to flush: s.Seal(packets)                 one goroutine at a time: the writer; may run beside the reader
//	after each: if s.OutputLen() > 0, send s.TakeOutput(…)
//	on EOF: s.CloseRead()
//	to end: s.CloseNotify(), send, close; or s.Abort() at any time
//
// A step that [Session.Light] calls light can be done on the loop, in place of submit.
// Until the loop has seen done it goes on with Feed; [Session.Feed] has the protocol and why no byte is forgotten.
// Packets that wait at a flush belong into one Seal, so that they share records.
//
// # Memory
//
// An idle session holds no buffer of this package. What it holds on a server, TLS 1.3 with an ECDSA certificate and
// a post-quantum key exchange, is 5.2 KB (go1.26, amd64; TestIdleSessionMemory):
//
//	tls.Conn             912
//	its two AES-GCM     1792  key schedules and tables
//	its hand buffer     1536  grows to the longest handshake message, the ClientHello; 1.2 KB less without X25519MLKEM768
//	its rawInput         576  grows to the longest record and never shrinks
//	Session              112
//	secrets, the rest    300
//
// rawInput is that small because records are handed to crypto/tls one at a time and whole, and because records of the
// unprotected part of the handshake, whose boundaries have no meaning, are split to fit into what it has. What remains
// cannot be helped without touching crypto/tls:
//
//   - A protected record cannot be split. One with n bytes of plaintext leaves an input buffer of n + 550 bytes (twice
//     the former size if that is more) for the life of the session: 16 KiB records, 16 KiB more. The peer decides on
//     the size of its records, and crypto/tls does not negotiate a limit (RFC 8449). Seal therefore makes records of
//     at most 3000 bytes, so that peers on this package cost each other 3.5 KiB at most.
//   - The hand buffer and the AES-GCM states are there until the tls.Conn is. Session tickets cost nothing per
//     session. TLS 1.2 keeps the ClientHello a second time (for ConnectionState.ExportKeyingMaterial).
//   - A tls.Config that is made for each connection (GetConfigForClient with Clone) is kept by each.
package tlsadapter
