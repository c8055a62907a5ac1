package load

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is connections that are made and stay: what Echo and Sink have in common. Owned by the loop, but for the channels.
type crowd struct {
	Role
	loop  *loop
	epoch time.Time
	like  []byte // a frame

	conns     []*conn
	dialled   int
	ready     int
	leaving   bool
	connected chan error // when all are ready, or one failed

	failed uint64
	first  error // of them
}

// answerLimit is how long an answer may take. Whoever waits longer has found a bug.
const answerLimit = 30 * time.Second

// connectLimit is how long so many connections may take.
func connectLimit(conns int) time.Duration {
	return answerLimit + time.Duration(conns)*20*time.Millisecond
}

func newCrowd(r Role) crowd {
	return crowd{Role: r, epoch: time.Now(), like: frame(r.Size), connected: make(chan error, 1)}
}

func (w *crowd) clock() time.Duration { return time.Since(w.epoch) }

// fail counts a failure.
func (w *crowd) fail(err error) {
	w.failed++
	if w.first == nil {
		w.first = err
	}
	tell(w.connected, err)
}

// tell does not wait: who waits for c wants to know one thing, and the first one is it.
func tell(c chan error, err error) {
	select {
	case c <- err:
	default:
	}
}

func (w *crowd) connect() error {
	w.loop.call(func() {
		w.conns, w.dialled, w.ready, w.leaving = make([]*conn, w.Conns), 0, 0, false
		for i := range w.conns {
			w.conns[i] = newConn(uint32(w.First + i))
		}
		if !w.TLS {
			for range cmp.Or(w.AtOnce, 64) {
				w.dialNext()
			}
		}
	})
	if w.TLS {
		if err := w.connectTLS(); err != nil {
			return err
		}
	}
	select {
	case err := <-w.connected:
		return err
	case <-time.After(connectLimit(w.Conns)):
		return fmt.Errorf("not all of %d connections were made in time", w.Conns)
	}
}

func (w *crowd) dialNext() {
	if w.dialled < len(w.conns) {
		c := w.conns[w.dialled]
		w.dialled++
		w.loop.dialOnLoop(c)
	}
}

// connectTLS makes the handshakes, some at a time, each of which waits on a goroutine.
func (w *crowd) connectTLS() error {
	cfg := clientConfig()
	return inParallel(16, w.Conns, func(i int) error {
		c := w.conns[i]
		nc, err := dialTCP(w.Addr, int(c.number), w.Sources)
		if err != nil {
			return err
		}
		c.clientTLS(nc, cfg)
		if err := c.tls.Handshake(); err != nil {
			nc.Close()
			return err
		}
		w.loop.call(func() { w.loop.adoptOnLoop(c) })
		return nil
	})
}

// clientConfig: verifying is the client's work, and takes processor time from the server.
func clientConfig() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
}

func inParallel(workers, n int, do func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, workers)
	for w := range errs {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = do(int(i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// opened sends the first packet, if it is the client's to send.
func (w *crowd) opened(c *conn) {
	if w.Welcomed {
		return
	}
	f := frame(w.Size)
	stamp(f[2:], w.clock(), c.number, 0)
	c.sent = 1
	w.loop.sendOnLoop(c, f, w.Record)
}

// firstPacket is the packet with which a connection is ready.
func (w *crowd) firstPacket(c *conn, packet []byte) error {
	if w.Welcomed {
		if len(packet) != w.Size {
			return fmt.Errorf("a welcome of %d bytes, not %d", len(packet), w.Size)
		}
	} else {
		if _, err := checkEcho(packet, w.like, c.number, 0); err != nil {
			return err
		}
		c.got = 1
	}
	c.ready = true
	w.ready++
	if w.ready == w.Conns {
		tell(w.connected, nil)
	}
	if !w.TLS {
		w.dialNext()
	}
	return nil
}

func (w *crowd) closed(c *conn, err error) {
	if err != nil && !w.leaving {
		if errors.Is(err, io.EOF) {
			err = errors.New("the server closed it")
		}
		w.fail(fmt.Errorf("connection %d: %w", c.number, err))
	}
}

func (w *crowd) disconnect() {
	w.loop.call(func() {
		w.leaving = true
		for _, c := range w.conns {
			w.loop.closeOnLoop(c)
		}
	})
}

func (w *crowd) outcome(o Outcome) Outcome {
	o.Failed = w.failed
	if w.first != nil {
		o.Error = w.first.Error()
	}
	return o
}
