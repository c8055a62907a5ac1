package load

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// Fleet is the processes of clients that play one role, as the server's process sees them. One goroutine at a time.
type Fleet struct {
	role      Role
	processes []*process
}

// process is one of them.
type process struct {
	conns   int
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

const (
	// leastSources are there however few the connections, for those that just ended and hold their ports.
	leastSources = 16
	// spareDescriptors is what a process needs besides its connections.
	spareDescriptors = 200
	// mostConns is how many connections a process has, whatever its limit.
	mostConns = 60_000
)

// Start starts as many processes as r.Conns takes; a Connect follows.
func Start(r Role) (*Fleet, error) {
	perProcess := int(max(min(below(fileLimit(), spareDescriptors), mostConns), 1))
	if r.PerProcess > 0 {
		perProcess = min(perProcess, r.PerProcess)
	}
	n := (r.Conns + perProcess - 1) / perProcess
	switch {
	case r.Senders > 0:
		n = 1 // which connections get how many, only the server knows
	case r.Conns >= 1000:
		n = max(n, runtime.NumCPU()/4)
	}
	if ports := portRange(); ports > 0 {
		r.Sources = int(float64(r.Conns)/(float64(ports)*usablePorts)) + 1
	}
	r.Sources = min(max(r.Sources, leastSources), mostSources)
	f := &Fleet{role: r}
	for i := range n {
		part := r
		part.First = i * r.Conns / n
		part.Conns = (i+1)*r.Conns/n - part.First
		if r.Active > 0 {
			part.Active = (i+1)*r.Active/n - i*r.Active/n
		}
		if r.AtOnce > 0 {
			part.AtOnce = max(r.AtOnce/n, 1)
		}
		p, err := startProcess(part)
		if err != nil {
			return nil, errors.Join(err, f.End())
		}
		f.processes = append(f.processes, p)
	}
	return f, nil
}

func startProcess(r Role) (*process, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{conns: r.Conns, cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), roleVar+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.orders, p.answers = json.NewEncoder(p.stdin), json.NewDecoder(bufio.NewReader(out))
	return p, nil
}

// Conns is how many connections the role has.
func (f *Fleet) Conns() int { return f.role.Conns }

// Connect makes the connections and returns when each has exchanged a packet.
func (f *Fleet) Connect() error { return f.do(doConnect) }

// Start starts the load.
func (f *Fleet) Start() error { return f.do(doStart) }

// Mark begins what Stop tells of.
func (f *Fleet) Mark() error { return f.do(doMark) }

// Count is how many answers or packets there were since Mark.
func (f *Fleet) Count() (uint64, error) {
	r, err := f.all(doCount, 0)
	return r.Count, err
}

// Stop ends the load, and returns what it came to since Mark when everything is answered. That something failed is an error.
func (f *Fleet) Stop() (Result, error) { return f.all(doStop, 0) }

// Expect tells Sink that each connection is to get so many packets more; Await waits for them.
func (f *Fleet) Expect(packets int) error {
	return f.each(func(p *process) (Outcome, error) { return p.do(doExpect, uint64(packets*p.conns)) }, nil)
}

// ExpectInAll is Expect for so many packets, whichever connections get them. Where there are Senders.
func (f *Fleet) ExpectInAll(packets uint64) error {
	_, err := f.processes[0].do(doExpect, packets)
	return err
}

// Await returns when the packets of Expect are there.
func (f *Fleet) Await() error { return f.do(doAwait) }

// Disconnect closes the connections. Connect makes new ones.
func (f *Fleet) Disconnect() error { return f.do(doDisconnect) }

// End has the clients leave, and waits for it.
func (f *Fleet) End() error {
	var errs []error
	for _, p := range f.processes {
		p.stdin.Close()
	}
	for _, p := range f.processes {
		defer time.AfterFunc(answerLimit, func() { _ = p.cmd.Process.Kill() }).Stop()
		errs = append(errs, p.cmd.Wait())
	}
	f.processes = nil
	return errors.Join(errs...)
}

func (f *Fleet) do(what verb) error {
	_, err := f.all(what, 0)
	return err
}

func (f *Fleet) all(what verb, n uint64) (Result, error) {
	var r Result
	err := f.each(func(p *process) (Outcome, error) { return p.do(what, n) }, r.add)
	return r, err
}

func (f *Fleet) each(do func(*process) (Outcome, error), add func(Outcome)) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, p := range f.processes {
		wg.Go(func() {
			o, err := do(p)
			mu.Lock()
			defer mu.Unlock()
			if add != nil {
				add(o)
			}
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *process) do(what verb, n uint64) (o Outcome, err error) {
	if err := p.orders.Encode(order{Do: what, N: n}); err != nil {
		return o, err
	}
	limit := connectLimit(p.conns) + 2*answerLimit
	defer time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() }).Stop()
	if err := p.answers.Decode(&o); err != nil {
		return o, fmt.Errorf("%s: no answer from the clients: %w", what, err)
	}
	if o.Failed > 0 {
		return o, fmt.Errorf("%s: %d clients failed: %s", what, o.Failed, cmp.Or(o.Error, "no reason"))
	}
	return o, nil
}

// Result is what a load came to, all processes together.
type Result struct {
	Count   uint64 // answers, packets, or connections
	Seconds float64
	Latency Histogram
}

// Rate is the count per second.
func (r *Result) Rate() float64 { return float64(r.Count) / r.Seconds }

func (r *Result) add(o Outcome) {
	r.Count += o.Count
	r.Seconds = max(r.Seconds, o.Seconds)
	r.Latency.Merge(o.Latency)
}
