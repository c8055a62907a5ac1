// Package bench holds the benchmarks: what the driver costs, with its clients in a process of their own.
package bench
