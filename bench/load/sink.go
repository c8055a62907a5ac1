package load

import (
	"errors"
	"fmt"
	"time"
)

// sink takes what the server sends of its own accord. Owned by the loop, but for the channel.
type sink struct {
	crowd

	got, due uint64
	there    chan error // got is due, or something failed
	since    time.Time
	marked   uint64
}

func newSink(r Role) (clients, error) {
	s := &sink{crowd: newCrowd(r), there: make(chan error, 1)}
	var err error
	s.loop, err = newLoop(s, r)
	return s, err
}

func (s *sink) start() error { return nil }

func (s *sink) packet(c *conn, packet []byte) error {
	if !c.ready {
		return s.firstPacket(c, packet)
	}
	if c.next == nil {
		c.next = make([]uint32, max(s.Senders, 1))
	}
	if err := checkSent(packet, s.like, c.next); err != nil {
		return err
	}
	s.got++
	if s.got == s.due {
		tell(s.there, nil)
	}
	return nil
}

func (s *sink) packetsDone(*conn) {}

func (s *sink) closed(c *conn, err error) {
	s.crowd.closed(c, err)
	if s.first != nil && !s.leaving {
		tell(s.there, s.first)
	}
}

func (s *sink) tick() time.Duration { return -1 }

func (s *sink) mark() {
	s.loop.call(func() { s.marked, s.since = s.got, time.Now() })
}

func (s *sink) count() (n uint64) {
	s.loop.call(func() { n = s.got - s.marked })
	return n
}

func (s *sink) stop() Outcome {
	var o Outcome
	s.loop.call(func() {
		o = s.outcome(Outcome{Count: s.got - s.marked, Seconds: time.Since(s.since).Seconds()})
	})
	return o
}

// expect: what is expected may be there already, or on its way.
func (s *sink) expect(n uint64) {
	s.loop.call(func() {
		s.due += n
		if s.got == s.due {
			tell(s.there, nil)
		}
	})
}

func (s *sink) await() error {
	select {
	case err := <-s.there:
		return err
	case <-time.After(answerLimit):
	}
	err := errors.New("stopped")
	s.loop.call(func() { err = fmt.Errorf("%d packets are missing", s.due-s.got) })
	return err
}
