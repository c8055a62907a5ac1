// Command demo is a game server and its players on this host: the players, in a process of their own, log in, move,
// and get their zone's state, while a table shows what the driver does. Ctrl-C ends it.
//
//	go run ./bench/demo -players 1000 -seconds 10 [-tls]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// realMain returns the exit code: 0, 1 for a failure or a fault, 2 for wrong use.
func realMain(args []string, stdin io.Reader, stdout *os.File, stderr io.Writer) int {
	if len(args) == 1 && args[0] == rolePlayers {
		return runPlayers(stdin, stdout, stderr)
	}
	o, err := parse(args, stderr)
	if err == flag.ErrHelp {
		return 0
	} else if err != nil {
		return 2
	}
	if err := checkDescriptors(o.players); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A later Ctrl-C kills; not at once, since a signal to the process group and one to the process may come together.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })

	fmt.Fprintln(stdout, headline(o))
	s, err := run(ctx, o, newView(stdout), stderr)
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}
	s.print(stdout)
	if len(s.faults()) > 0 {
		return 1
	}
	return 0
}

// parse reads the flags; on an error it has said why.
func parse(args []string, stderr io.Writer) (options, error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	players := flags.Int("players", 1000, "how many players")
	seconds := flags.Int("seconds", 10, "how long they play")
	dial := flags.String("dial", defaultDial(), `what the players connect with: "driver", which needs all of 127.0.0.0/8
to be this host, as on Linux, or "net", the standard library`)
	secure := flags.Bool("tls", false, "TLS, with a certificate made for this run")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *players < 1 || *players > maxPlayers:
		err = fmt.Errorf("-players %d is not within 1 and %d", *players, maxPlayers)
	case *seconds < 1:
		err = fmt.Errorf("-seconds %d is not positive", *seconds)
	case *dial != dialDriver && *dial != dialNet:
		err = fmt.Errorf("-dial %q is neither driver nor net", *dial)
	}
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
	}
	return options{players: *players, length: time.Duration(*seconds) * time.Second, dial: *dial, secure: *secure}, err
}
