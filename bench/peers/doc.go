// Package peers runs the driver's benchmarks against other frameworks for very many connections, in the same run, with the same clients
// and the same framing. Each server is written as its framework's own documentation recommends: gnet's README and its
// simple_protocol example; nbio's README; netpoll's guide, and its mux package where several goroutines send.
//
// It is a module of its own, so that who embeds the driver does not inherit them.
package peers
