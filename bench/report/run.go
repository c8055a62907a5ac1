package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

type runOptions struct {
	rounds    int
	benchtime string
	pattern   string
	limit     time.Duration
	short     bool
}

// suites are the packages with benchmarks, by the name that their results get.
var suites = []struct{ name, dir string }{
	{"bench", ".."},
	{"peers", "../peers"},
}

// run runs every suite rounds times and writes <suite>-<round>.txt and machine.txt into the folder results. In a round the servers
// that are compared have their turns one after the other, in each round another first; the rounds show how far that can be trusted. A
// benchmark that fails is an error when all have run.
func run(ctx context.Context, o runOptions, results string) error {
	began := time.Now()
	binaries, err := build(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(binaries[0]))
	if err := clear(results); err != nil {
		return err
	}
	m := describeMachine()
	p := &progress{began: began, rounds: o.rounds}
	bounded, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	var errs []error
	for round := 1; round <= o.rounds && bounded.Err() == nil; round++ {
		roundBegan := time.Now()
		p.round, p.done = round, 0
		for i, s := range suites {
			out := filepath.Join(results, fmt.Sprintf("%s-%d.txt", s.name, round))
			if err := runSuite(bounded, o, round-1, binaries[i], s.dir, out, p); err != nil {
				errs = append(errs, fmt.Errorf("%s, round %d: %w", s.name, round, err))
			}
			if ctx.Err() != nil {
				return errors.Join(errs...)
			}
		}
		p.perRound = p.done
		if took := time.Since(roundBegan); round < o.rounds && time.Since(began)+took > o.limit {
			p.say("round %d of %d was the last: %v are the limit", round, o.rounds, o.limit)
			o.rounds = round
		}
	}
	m.finish(o, time.Since(began))
	p.say("%d rounds in %v", o.rounds, time.Since(began).Round(time.Second))
	return errors.Join(append(errs, os.WriteFile(filepath.Join(results, "machine.txt"), []byte(m.String()), 0o644))...)
}

func build(ctx context.Context) ([]string, error) {
	dir, err := os.MkdirTemp("", "gridstream-report")
	if err != nil {
		return nil, err
	}
	var binaries []string
	for _, s := range suites {
		out := filepath.Join(dir, s.name+".test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", out, ".")
		cmd.Dir, cmd.Stderr = s.dir, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("building %s: %w", s.name, err)
		}
		binaries = append(binaries, out)
	}
	return binaries, nil
}

// clear removes the last run's results.
func clear(results string) error {
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(results, "*.txt"))
	for _, name := range old {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

func runSuite(ctx context.Context, o runOptions, first int, binary, dir, out string, p *progress) error {
	args := []string{"-test.run=^$", "-test.bench=" + o.pattern, "-test.benchtime=" + o.benchtime, "-test.timeout=" + o.limit.String(),
		fmt.Sprintf("-first=%d", first)}
	if o.short {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = dir
	var complaints strings.Builder
	cmd.Stderr = &complaints
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(io.TeeReader(stdout, file))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "Benchmark"):
			p.benchmark(line)
		case strings.HasPrefix(line, "--- FAIL"):
			p.say("%s", line)
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(complaints.String()))
	}
	return nil
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// progress is a line that says how far the run is.
type progress struct {
	began            time.Time
	round, rounds    int
	done, perRound   int // benchmarks
	longestLineSoFar int
}

func (p *progress) benchmark(line string) {
	p.done++
	total := ""
	if p.perRound > 0 {
		total = fmt.Sprintf("/%d", p.perRound)
	}
	name, _, _ := strings.Cut(line, "\t")
	p.line(fmt.Sprintf("round %d/%d  %d%s benchmarks  %v  %s", p.round, p.rounds, p.done, total,
		time.Since(p.began).Round(time.Second), strings.TrimPrefix(strings.TrimSpace(name), "Benchmark")))
}

func (p *progress) line(s string) {
	p.longestLineSoFar = max(p.longestLineSoFar, len(s))
	fmt.Fprintf(os.Stderr, "\r%-*s", p.longestLineSoFar, s)
}

func (p *progress) say(format string, args ...any) {
	p.line("")
	fmt.Fprintf(os.Stderr, "\r"+format+"\n", args...)
}
