// Package bench is the benchmarks: what the driver costs, beside other servers, in the same run. They are functions of the servers to
// compare, so that the nested module peers runs the same ones against rival frameworks. Package load has the clients, which run
// in processes of their own. docs/benchmarks.md has the method and the figures; with -short everything is small, for -benchtime 1x.
package bench
