package load

import (
	"errors"
	"fmt"
	"time"
)

// churn makes connections, has a packet echoed on each, and closes them. Owned by the loop, but for the channel.
type churn struct {
	Role
	loop  *loop
	epoch time.Time
	like  []byte

	running  bool
	underWay int
	last     uint32
	ended    chan struct{}

	latency Histogram
	since   time.Time
	failed  uint64
	first   error
}

func newChurn(r Role) (clients, error) {
	u := &churn{Role: r, epoch: time.Now(), like: frame(r.Size), last: uint32(r.First), ended: make(chan struct{}, 1)}
	var err error
	u.loop, err = newLoop(u, r)
	return u, err
}

func (u *churn) clock() time.Duration { return time.Since(u.epoch) }

func (u *churn) connect() error { return nil }

func (u *churn) start() error {
	u.loop.call(func() {
		u.running = true
		for range u.Conns {
			u.next()
		}
	})
	return nil
}

func (u *churn) next() {
	if !u.running {
		return
	}
	u.last++
	u.underWay++
	c := newConn(u.last)
	c.began = u.clock()
	u.loop.dialOnLoop(c)
}

func (u *churn) opened(c *conn) {
	stamp(u.like[2:], u.clock(), c.number, 0)
	u.loop.sendOnLoop(c, u.like, 0)
}

func (u *churn) packet(c *conn, packet []byte) error {
	if _, err := checkEcho(packet, u.like, c.number, 0); err != nil {
		return err
	}
	if c.ready {
		return errors.New("a second answer")
	}
	c.ready = true
	u.latency.Add(int64(u.clock() - c.began))
	return nil
}

func (u *churn) packetsDone(c *conn) {
	if c.ready {
		u.loop.closeOnLoop(c)
	}
}

func (u *churn) closed(c *conn, err error) {
	u.underWay--
	if err != nil {
		u.failed++
		if u.first == nil {
			u.first = fmt.Errorf("connection %d: %w", c.number, err)
		}
		if u.failed > 100 {
			u.running = false
		}
	}
	switch {
	case !u.running:
		u.settle()
	case err == nil:
		u.next()
	default:
		u.loop.post(u.next) // not here: the next one may fail at once, and the next
	}
}

// settle tells stop that there is nothing to wait for any more.
func (u *churn) settle() {
	if u.underWay == 0 {
		select {
		case u.ended <- struct{}{}:
		default:
		}
	}
}

func (u *churn) tick() time.Duration { return -1 }

func (u *churn) mark() {
	u.loop.call(func() {
		u.latency.Reset()
		u.since = time.Now()
	})
}

func (u *churn) count() (n uint64) {
	u.loop.call(func() { n = u.latency.Count() })
	return n
}

func (u *churn) stop() Outcome {
	var o Outcome
	u.loop.call(func() {
		o = Outcome{Count: u.latency.Count(), Seconds: time.Since(u.since).Seconds(), Latency: u.latency.Sparse()}
		u.running = false
		u.settle()
	})
	var err error
	select {
	case <-u.ended:
	case <-time.After(answerLimit):
		err = errors.New("connections that were never answered")
	}
	u.loop.call(func() {
		o.Failed = u.failed
		if err = errors.Join(u.first, err); err != nil {
			o.Failed++
			o.Error = err.Error()
		}
	})
	return o
}

func (u *churn) expect(uint64) {}
func (u *churn) await() error  { return nil }
func (u *churn) disconnect()   {}
