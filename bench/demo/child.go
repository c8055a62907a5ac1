package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// rolePlayers is the flag that makes a process the players' one.
const rolePlayers = "-role=players"

// runPlayers is the players' process.
func runPlayers(stdin io.Reader, stdout, stderr io.Writer) int {
	// Ctrl-C reaches the whole process group; it means the same as "stop".
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	in := bufio.NewScanner(stdin)
	var o order
	if !in.Scan() {
		return 1 // nobody is there
	}
	if err := json.Unmarshal(in.Bytes(), &o); err != nil {
		fmt.Fprintln(stderr, "players: order:", err)
		return 1
	}
	go func() {
		for in.Scan() {
			if in.Text() == "stop" {
				stop()
			}
		}
		os.Exit(1) // whoever gave the order is gone
	}()

	out := json.NewEncoder(stdout)
	f, err := newFleet(o, func(r report) { _ = out.Encode(r) })
	if err == nil {
		err = f.play(ctx)
	}
	if err != nil {
		fmt.Fprintln(stderr, "players:", err)
		return 1
	}
	return 0
}

// child is the players' process as its parent sees it.
type child struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	reports chan report // closed when the process has closed its output
}

// startChild starts the players' process, which waits for its order. stderr gets its complaints.
func startChild(stderr io.Writer) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, rolePlayers), reports: make(chan report)}
	c.cmd.Stderr = stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.reports)
		for in := json.NewDecoder(stdout); ; {
			var r report
			if in.Decode(&r) != nil {
				return
			}
			c.reports <- r
		}
	}()
	return c, nil
}

func (c *child) order(o order) error { return json.NewEncoder(c.stdin).Encode(o) }

// stop asks the players to leave; there may be no one left to ask.
func (c *child) stop() { _, _ = io.WriteString(c.stdin, "stop\n") }

// kill ends the process, and the reports.
func (c *child) kill() { _ = c.cmd.Process.Kill() }

// wait reaps the process. The reports must have ended.
func (c *child) wait() error {
	_ = c.stdin.Close()
	return c.cmd.Wait()
}
