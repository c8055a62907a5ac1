package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// handshakes makes TLS connections, has a packet echoed on each, and closes them: a goroutine for each one under way.
type handshakes struct {
	Role
	cfg     *tls.Config
	epoch   time.Time
	like    []byte
	last    atomic.Uint32
	running atomic.Bool
	work    sync.WaitGroup

	// Guarded by mu.
	mu      sync.Mutex
	latency Histogram
	since   time.Time
	failed  uint64
	first   error
}

func newHandshakes(r Role) (clients, error) {
	h := &handshakes{Role: r, cfg: clientConfig(), epoch: time.Now(), like: frame(r.Size)}
	h.last.Store(uint32(r.First))
	return h, nil
}

// connect makes the session that is to be resumed.
func (h *handshakes) connect() error {
	if !h.Resumed {
		return nil
	}
	h.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	h.cfg.ServerName = "bench"
	return h.handshake(false)
}

func (h *handshakes) start() error {
	h.running.Store(true)
	for range h.Conns {
		h.work.Go(func() {
			for h.running.Load() {
				began := time.Now()
				err := h.handshake(h.Resumed)
				h.mu.Lock()
				if err != nil {
					h.failed++
					h.first = errors.Join(h.first, err)
					h.running.Store(false)
				} else {
					h.latency.Add(int64(time.Since(began)))
				}
				h.mu.Unlock()
			}
		})
	}
	return nil
}

func (h *handshakes) handshake(resumed bool) error {
	number := h.last.Add(1)
	nc, err := dialTCP(h.Addr, int(number), h.Sources)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(answerLimit))
	tc := tls.Client(nc, h.cfg)
	if err := tc.Handshake(); err != nil {
		return err
	}
	if did := tc.ConnectionState().DidResume; did != resumed {
		return fmt.Errorf("session resumed: %t", did)
	}
	return h.ping(tc, number)
}

func (h *handshakes) ping(nc net.Conn, number uint32) error {
	f := append([]byte(nil), h.like...)
	stamp(f[2:], time.Since(h.epoch), number, 0)
	if _, err := nc.Write(f); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, f); err != nil {
		return err
	}
	_, err := checkEcho(f[2:], h.like, number, 0)
	return err
}

func (h *handshakes) mark() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latency.Reset()
	h.since = time.Now()
}

func (h *handshakes) count() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latency.Count()
}

func (h *handshakes) stop() Outcome {
	h.mu.Lock()
	o := Outcome{Count: h.latency.Count(), Seconds: time.Since(h.since).Seconds(), Latency: h.latency.Sparse()}
	h.mu.Unlock()
	h.running.Store(false)
	h.work.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.Failed = h.failed; h.first != nil {
		o.Error = h.first.Error()
	}
	return o
}

func (h *handshakes) expect(uint64) {}
func (h *handshakes) await() error  { return nil }
func (h *handshakes) disconnect()   {}
