//go:build unix

// Command soak has thousands of players come and go, talk, pause, break and be hijacked and adopted, for as long as asked, and
// looks that the servers' heap, goroutines and descriptors stay flat. Servers of every kind are in one process, the players in another.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

func main() {
	minutes := flag.Float64("minutes", 2, "how long")
	players := flag.Int("players", 2000, "at the same time, over all kinds")
	role := flag.String("role", "", "servers or players: for the processes that it starts")
	flag.Parse()
	var err error
	switch *role {
	case "servers":
		err = runServers(os.Stdin, os.Stdout)
	case "players":
		err = runPlayers(os.Stdin, os.Stdout)
	default:
		err = soak(time.Duration(*minutes*float64(time.Minute)), *players)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// process is one of the two. It answers each line that it is given with a JSON value, and ends with its input.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	says  *json.Decoder
}

func start(role string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, "-role", role)}
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.says = json.NewDecoder(stdout)
	return p, p.cmd.Start()
}

func (p *process) tell(v, answer any) error {
	if err := json.NewEncoder(p.stdin).Encode(v); err != nil {
		return err
	}
	return p.says.Decode(answer)
}

func (p *process) end() error {
	p.stdin.Close()
	return p.cmd.Wait()
}

// answers has a process answer line by line.
func answers(in io.Reader, out io.Writer, answer func(line []byte) (any, error)) error {
	lines, encoder := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		v, err := answer(lines.Bytes())
		if err == nil {
			err = encoder.Encode(v)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func soak(d time.Duration, players int) error {
	servers, err := start("servers")
	if err != nil {
		return err
	}
	defer servers.cmd.Process.Kill()
	var addrs []address
	if err := servers.tell("listen", &addrs); err != nil {
		return err
	}
	var before, after sample
	if err := servers.tell("sample", &before); err != nil {
		return err
	}
	clients, err := start("players")
	if err != nil {
		return err
	}
	defer clients.cmd.Process.Kill()
	var counts playerCounts
	if err := clients.tell(order{addrs, players}, &counts); err != nil {
		return err
	}
	var samples []sample
	every := max(d/100, time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < d; {
		<-tick.C
		var s sample
		if err := servers.tell("sample", &s); err != nil {
			return err
		}
		s.At = time.Since(begun)
		samples = append(samples, s)
	}
	if err := clients.tell("stop", &counts); err != nil {
		return err
	}
	if err := clients.end(); err != nil {
		return err
	}
	if err := servers.tell("settle", &after); err != nil {
		return err
	}
	if err := servers.end(); err != nil {
		return err
	}
	return verdict(os.Stdout, before, samples, after, counts)
}
