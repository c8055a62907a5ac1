// Command report runs all benchmarks, stores the raw results beside a description of the machine, and draws docs/benchmarks.md from them.
//
//	go run . -rounds 3 -benchtime 500ms    # in bench/report: run, store, draw
//	go run . -rounds 0                     # draw what is stored
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	var o runOptions
	flag.IntVar(&o.rounds, "rounds", 3, "how often to run everything; 0: only draw what is stored")
	flag.StringVar(&o.benchtime, "benchtime", "500ms", "how long to measure each")
	flag.StringVar(&o.pattern, "bench", ".", "which benchmarks")
	flag.DurationVar(&o.limit, "limit", time.Hour, "when to stop, also in the middle; no round begins that would probably end later")
	flag.BoolVar(&o.short, "short", false, "small, to try it out")
	results := flag.String("results", "../results", "folder of the raw results")
	doc := flag.String("doc", "../../docs/benchmarks.md", "document to write; its plots are beside it, in benchmarks/")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := report(ctx, o, *results, *doc); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report(ctx context.Context, o runOptions, results, doc string) error {
	var failed error
	if o.rounds > 0 {
		if failed = run(ctx, o, results); ctx.Err() != nil {
			return failed
		}
	}
	set, err := readResults(results)
	if err != nil {
		return err
	}
	if err := writeDocument(set, doc); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "wrote", doc)
	return failed
}
