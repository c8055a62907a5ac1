// Package bench holds the benchmarks: what the driver costs, beside a server on net and crypto/tls with a goroutine for each
// connection, in the same run. The clients are the same for both and run in a process of their own. docs/benchmarks.md has the
// method and the figures; with -short everything is small, for -benchtime 1x.
package bench
