package bench_test

import (
	"testing"

	"go.uber.org/goleak"

	"gridstream/bench"
	"gridstream/bench/load"
)

func TestMain(m *testing.M) {
	load.Main()
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// servers are compared in every benchmark.
func servers() []bench.Impl { return append(bench.Drivers(), bench.Inline()) }
