package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// roleVar is the environment variable that makes a process one of clients: a Role in JSON.
const roleVar = "GRIDSTREAM_BENCH_ROLE"

// Main makes this process clients, if it was started as such, and then does not return. A TestMain begins with it.
func Main() {
	text := os.Getenv(roleVar)
	if text == "" {
		return
	}
	if err := play(text); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(text string) error {
	var r Role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	if r.Size < MinSize {
		return fmt.Errorf("packets of %d bytes; %d are the least", r.Size, MinSize)
	}
	c, err := newClients(r)
	if err != nil {
		return err
	}
	orders := make(chan order)
	go func() {
		in := json.NewDecoder(os.Stdin)
		for {
			var o order
			if err := in.Decode(&o); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, "clients:", err)
				}
				os.Exit(0) // whoever gave the orders is gone, or has done
			}
			orders <- o
		}
	}()
	answers := json.NewEncoder(os.Stdout)
	for o := range orders {
		answer, err := obey(c, o)
		if err != nil {
			answer.Failed, answer.Error = max(answer.Failed, 1), err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func newClients(r Role) (clients, error) {
	switch r.Kind {
	case Echo:
		return newEcho(r)
	case Sink:
		return newSink(r)
	case Churn:
		return newChurn(r)
	case Handshakes:
		return newHandshakes(r)
	}
	return nil, fmt.Errorf("unknown kind of clients %q", r.Kind)
}

func obey(c clients, o order) (Outcome, error) {
	switch o.Do {
	case doConnect:
		return Outcome{}, c.connect()
	case doStart:
		return Outcome{}, c.start()
	case doMark:
		c.mark()
	case doCount:
		return Outcome{Count: c.count()}, nil
	case doStop:
		return c.stop(), nil
	case doExpect:
		c.expect(o.N)
	case doAwait:
		return Outcome{}, c.await()
	case doDisconnect:
		c.disconnect()
	default:
		return Outcome{}, fmt.Errorf("unknown order %q", o.Do)
	}
	return Outcome{}, nil
}
