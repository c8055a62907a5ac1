package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The clients run in a process of their own, so that what the server costs is what is measured: this test binary, started again
// with roleVar set to a role in JSON.
const roleVar = "GRIDSTREAM_BENCH_ROLE"

func TestMain(m *testing.M) {
	if text := os.Getenv(roleVar); text != "" {
		if err := playRole(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// role is what a process of clients is to do.
type role struct {
	Kind    string // one of clientKinds
	Addr    string
	TLS     bool
	Conns   int
	Size    int  // of a packet, without framing
	Record  int  // most of it in one TLS record, at connect; 0: as much as TLS allows
	Depth   int  // packets under way on each connection
	PaceMS  int  // one packet each so many milliseconds; 0: as fast as answers come
	Resumed bool // handshakes: resume the first one's session
}

// clients is a load. Between start and stop it runs.
type clients interface {
	// connect comes first, and returns when every connection has exchanged a packet.
	connect() error
	start()
	// mark begins what stop tells of.
	mark()
	stop() outcome
	// await returns when every connection has got n bytes more.
	await(n int)
}

// outcome is what a load came to.
type outcome struct {
	Count    uint64 // answers, or handshakes
	Seconds  float64
	P50, P99 int64 // nanoseconds
	Failed   uint64
	Error    string // the first failure
}

func (o outcome) rate() float64 { return float64(o.Count) / o.Seconds }

var clientKinds = map[string]func(role) clients{
	"echo":       func(r role) clients { return &echoClients{role: r} },
	"handshakes": func(r role) clients { return &handshakeClients{role: r} },
	"sink":       func(r role) clients { return &sinkClients{role: r} },
}

// order is one line on the stdin of a process of clients; each is answered with an outcome.
type order struct {
	Do string // start, mark, stop, await
	N  int
}

func playRole(text string) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	kind := clientKinds[r.Kind]
	if kind == nil {
		return fmt.Errorf("unknown kind of clients %q", r.Kind)
	}
	c := kind(r)
	if err := c.connect(); err != nil {
		return err
	}
	orders, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var answer outcome
	for {
		if err := answers.Encode(answer); err != nil {
			return err
		}
		var o order
		switch err := orders.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		answer = outcome{}
		switch o.Do {
		case "start":
			c.start()
		case "mark":
			c.mark()
		case "stop":
			answer = c.stop()
		case "await":
			c.await(o.N)
		default:
			return fmt.Errorf("unknown order %q", o.Do)
		}
	}
}

// process is a process of clients.
type process struct {
	tb      testing.TB
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

// startClients starts clients that play r, and returns when they are connected.
func startClients(tb testing.TB, r role) *process {
	tb.Helper()
	text, err := json.Marshal(r)
	require.NoError(tb, err)
	p := &process{tb: tb, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), roleVar+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(tb, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, p.cmd.Start())
	p.orders, p.answers = json.NewEncoder(p.stdin), json.NewDecoder(bufio.NewReader(out))
	p.answer()
	return p
}

func (p *process) do(what string, n int) outcome {
	p.tb.Helper()
	require.NoError(p.tb, p.orders.Encode(order{Do: what, N: n}))
	return p.answer()
}

func (p *process) answer() (o outcome) {
	p.tb.Helper()
	require.NoError(p.tb, p.answers.Decode(&o))
	return o
}

// end has the clients leave.
func (p *process) end() {
	p.tb.Helper()
	p.stdin.Close()
	require.NoError(p.tb, p.cmd.Wait())
}
