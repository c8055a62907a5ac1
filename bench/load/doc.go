// Package load is the benchmarks' clients. They run in processes of their own, so that what the server costs is what is measured: the
// test binary started again, see Main and Start. They are the same for every server: plain sockets and epoll on one thread a
// process, so that they take little of the processor that they share with the server; where there is no epoll, a goroutine a connection.
//
// They check what they get: each answer's length, content, connection and place in the order, and, when a load stops, that none is
// missing.
//
// No server imports it.
package load
