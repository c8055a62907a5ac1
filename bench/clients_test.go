package bench

import (
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// dialers is how many connections a process of clients makes at the same time, so that the server's backlog is never full.
const dialers = 16

// maxRecord is the most plaintext in one TLS record.
const maxRecord = 16 << 10

func dial(r role, cfg *tls.Config) (net.Conn, error) {
	nc, err := net.Dial("tcp", r.Addr)
	if err != nil || !r.TLS {
		return nc, err
	}
	tc := tls.Client(nc, cfg)
	if err := tc.Handshake(); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// clientConfig: verifying is the client's work, and takes processor time from the server.
func clientConfig() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
}

// framed is a frame with room for size bytes.
func framed(size int) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(size)), make([]byte, size)...)
}

// dialAll makes r.Conns connections and has a packet echoed on each.
func dialAll(r role) ([]net.Conn, error) {
	cfg := clientConfig()
	conns := make([]net.Conn, r.Conns)
	return conns, inParallel(r.Conns, func(i int) (err error) {
		if conns[i], err = dial(r, cfg); err != nil {
			return err
		}
		return pingInPieces(conns[i], framed(r.Size), cmp.Or(r.Record, maxRecord))
	})
}

func inParallel(n int, do func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, dialers)
	for d := range errs {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[d] == nil; i = next.Add(1) - 1 {
				errs[d] = do(int(i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ping sends frame and waits for as many bytes.
func ping(nc net.Conn, frame []byte) error { return pingInPieces(nc, frame, len(frame)) }

// pingInPieces is ping with at most piece bytes a write, each of which is a record in TLS.
func pingInPieces(nc net.Conn, frame []byte, piece int) error {
	for written := 0; written < len(frame); {
		n, err := nc.Write(frame[written:min(written+piece, len(frame))])
		if err != nil {
			return err
		}
		written += n
	}
	_, err := io.ReadFull(nc, make([]byte, len(frame)))
	return err
}

// tally is what loads have in common.
type tally struct {
	latency  histogram
	since    time.Time
	running  atomic.Bool
	failures atomic.Uint64
	first    atomic.Pointer[error]
	work     sync.WaitGroup
}

func (t *tally) failed(err error) {
	if err != nil {
		t.failures.Add(1)
		t.first.CompareAndSwap(nil, &err)
	}
}

func (t *tally) mark() {
	t.latency.reset()
	t.since = time.Now()
}

func (t *tally) stop() outcome {
	o := outcome{
		Seconds: time.Since(t.since).Seconds(),
		Count:   t.latency.count(),
		P50:     t.latency.quantile(0.5),
		P99:     t.latency.quantile(0.99),
	}
	t.running.Store(false)
	t.work.Wait()
	o.Failed = t.failures.Load()
	if err := t.first.Load(); err != nil {
		o.Error = (*err).Error()
	}
	return o
}

func (t *tally) await(int) { panic("nothing to wait for") }

// echoClients have packets echoed: a goroutine a connection, with Depth packets under way.
type echoClients struct {
	role
	tally
	conns []net.Conn
}

func (e *echoClients) connect() (err error) {
	e.conns, err = dialAll(e.role)
	return err
}

func (e *echoClients) start() {
	e.running.Store(true)
	for _, nc := range e.conns {
		e.work.Go(func() {
			if e.PaceMS > 0 {
				e.failed(e.pace(nc, time.Duration(e.PaceMS)*time.Millisecond))
			} else {
				e.failed(e.saturate(nc))
			}
		})
	}
}

// saturate sends a packet for each one that comes back. Each carries the time at which it was sent.
func (e *echoClients) saturate(nc net.Conn) error {
	began := time.Now()
	frameLen := 2 + e.Size
	out := make([]byte, 0, e.Depth*frameLen)
	in := make([]byte, e.Depth*frameLen)
	frame := framed(e.Size)
	underWay, have := 0, 0
	for answered := e.Depth; ; {
		out = out[:0]
		if e.running.Load() {
			binary.BigEndian.PutUint64(frame[2:], uint64(time.Since(began)))
			for range answered {
				out = append(out, frame...)
			}
			underWay += answered
			if _, err := nc.Write(out); err != nil {
				return err
			}
		}
		if underWay == 0 {
			return nil
		}
		for answered = 0; answered == 0; {
			n, err := nc.Read(in[have:])
			if err != nil {
				return err
			}
			have += n
			now := time.Since(began)
			for ; (answered+1)*frameLen <= have; answered++ {
				e.latency.add(int64(now) - int64(binary.BigEndian.Uint64(in[answered*frameLen+2:])))
			}
		}
		have = copy(in, in[answered*frameLen:have])
		underWay -= answered
	}
}

// pace sends a packet each interval, at times of its own.
func (e *echoClients) pace(nc net.Conn, interval time.Duration) error {
	frame := framed(e.Size)
	time.Sleep(rand.N(interval))
	for e.running.Load() {
		sent := time.Now()
		if err := ping(nc, frame); err != nil {
			return err
		}
		took := time.Since(sent)
		e.latency.add(int64(took))
		time.Sleep(interval - took%interval)
	}
	return nil
}

// handshakeClients make connections, have a packet echoed on each, and close them; Conns at a time.
type handshakeClients struct {
	role
	tally
	cfg *tls.Config
}

func (h *handshakeClients) connect() error {
	h.cfg = clientConfig()
	if h.Resumed {
		h.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		h.cfg.ServerName = "bench"
	}
	h.Resumed = false
	err := h.handshake()
	h.Resumed = h.cfg.ClientSessionCache != nil
	return err
}

func (h *handshakeClients) start() {
	h.running.Store(true)
	for range h.Conns {
		h.work.Go(func() {
			for h.running.Load() {
				began := time.Now()
				if err := h.handshake(); err != nil {
					h.failed(err)
					continue
				}
				h.latency.add(int64(time.Since(began)))
			}
		})
	}
}

func (h *handshakeClients) handshake() error {
	nc, err := dial(h.role, h.cfg)
	if err != nil {
		return err
	}
	defer nc.Close()
	if resumed := nc.(*tls.Conn).ConnectionState().DidResume; resumed != h.Resumed {
		return fmt.Errorf("session resumed: %t", resumed)
	}
	return ping(nc, framed(h.Size))
}

// sinkClients take what is broadcast.
type sinkClients struct {
	role
	tally
	conns    []net.Conn
	received atomic.Int64
	expected atomic.Int64
	all      chan struct{}
}

func (s *sinkClients) connect() (err error) {
	s.conns, err = dialAll(s.role)
	s.all = make(chan struct{}, 1)
	for _, nc := range s.conns {
		go s.read(nc)
	}
	return err
}

func (s *sinkClients) read(nc net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := nc.Read(buf)
		if n > 0 && s.received.Add(int64(n)) == s.expected.Load() {
			s.all <- struct{}{}
		}
		if err != nil {
			return
		}
	}
}

func (s *sinkClients) start() {}

// await: its order comes before what is to be awaited is sent.
func (s *sinkClients) await(n int) {
	s.expected.Add(int64(n * len(s.conns)))
	fmt.Fprintln(os.Stdout, "{}") // the answer to the order; what follows tells that all is there
	<-s.all
}
