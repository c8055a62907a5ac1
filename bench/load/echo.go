package load

import (
	"errors"
	"fmt"
	"time"
)

// echo has packets echoed. Owned by the loop, but for the channel.
type echo struct {
	crowd

	running  bool
	underWay int
	out      []byte        // frames, Depth of them
	batch    uint32        // answers in what was read together
	drained  chan struct{} // nil: not stopping. Closed when nothing is under way

	latency Histogram
	since   time.Time
	counted uint64

	// Pace.
	began time.Duration
	turn  int
}

// mostUnanswered is how many packets may be under way on a connection that has a pace.
const mostUnanswered = 64

func newEcho(r Role) (clients, error) {
	e := &echo{crowd: newCrowd(r)}
	if e.Active == 0 {
		e.Active = e.Conns
	}
	for range max(e.Depth, 1) {
		e.out = append(e.out, e.like...)
	}
	var err error
	e.loop, err = newLoop(e, r)
	return e, err
}

func (e *echo) start() error {
	e.loop.call(func() {
		e.running, e.began, e.turn = true, e.clock(), 0
		if e.Pace == 0 {
			for _, c := range e.conns[:e.Active] {
				e.send(c, uint32(e.Depth))
			}
		}
	})
	return nil
}

// send sends n packets, at most Depth.
func (e *echo) send(c *conn, n uint32) {
	now := e.clock()
	for i := range n {
		stamp(e.out[int(i)*len(e.like)+2:], now, c.number, c.sent)
		c.sent++
	}
	e.underWay += int(n)
	e.loop.sendOnLoop(c, e.out[:int(n)*len(e.like)], 0)
}

func (e *echo) packet(c *conn, packet []byte) error {
	if !c.ready {
		return e.firstPacket(c, packet)
	}
	sent, err := checkEcho(packet, e.like, c.number, c.got)
	if err == nil && c.got == c.sent {
		err = errors.New("an answer to nothing")
	}
	if err != nil {
		return err
	}
	if e.batch == 0 {
		c.began = e.clock()
	}
	c.got++
	e.batch++
	e.underWay--
	e.latency.Add(int64(c.began - sent))
	return nil
}

func (e *echo) packetsDone(c *conn) {
	n := e.batch
	e.batch = 0
	e.counted += uint64(n)
	if e.running && e.Pace == 0 && n > 0 {
		e.send(c, n)
	}
	e.settle()
}

func (e *echo) closed(c *conn, err error) {
	e.batch = 0 // where an answer was wrong, those before it have no packetsDone
	e.crowd.closed(c, err)
	e.settle()
}

// settle tells stop that there is nothing to wait for any more.
func (e *echo) settle() {
	if e.drained != nil && (e.underWay == 0 || e.failed > 0) {
		close(e.drained)
		e.drained = nil
	}
}

// tick sends what is due. The connections have their turns at even distances.
func (e *echo) tick() time.Duration {
	if !e.running || e.Pace == 0 {
		return -1
	}
	for {
		due := e.began + time.Duration(e.turn)*e.Pace/time.Duration(e.Active)
		if left := due - e.clock(); left > 0 {
			return left
		}
		if c := e.conns[e.turn%e.Active]; c.ready && c.fd >= 0 && c.sent-c.got < mostUnanswered {
			e.send(c, 1)
		}
		e.turn++
	}
}

func (e *echo) mark() {
	e.loop.call(func() {
		e.latency.Reset()
		e.counted, e.since = 0, time.Now()
	})
}

func (e *echo) count() (n uint64) {
	e.loop.call(func() { n = e.counted })
	return n
}

func (e *echo) stop() Outcome {
	var o Outcome
	drained := make(chan struct{})
	e.loop.call(func() {
		o = Outcome{Count: e.counted, Seconds: time.Since(e.since).Seconds(), Latency: e.latency.Sparse()}
		e.running, e.drained = false, drained
		e.settle()
	})
	select {
	case <-drained:
	case <-time.After(answerLimit):
		e.loop.call(func() { e.fail(fmt.Errorf("%d packets were never answered", e.underWay)) })
	}
	e.loop.call(func() { o = e.outcome(o) })
	return o
}

func (e *echo) expect(uint64) {}
func (e *echo) await() error  { return nil }
