package drivertest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"gridstream/driver"
)

// A numbered packet is its sender (1 byte), its number (4 bytes), and a body that follows from the two.

const numberedHeader = 5

// numbered appends a packet with a body of size bytes.
func numbered(dst []byte, sender, number, size int) []byte {
	dst = append(dst, byte(sender))
	dst = binary.BigEndian.AppendUint32(dst, uint32(number))
	for i := range size {
		dst = append(dst, bodyByte(sender, number, i))
	}
	return dst
}

func bodyByte(sender, number, i int) byte { return byte(sender*31 + number*7 + i) }

// checker looks that numbered packets arrive whole and in order per sender. Any goroutine, as long as calls have the order of the
// packets.
type checker struct {
	// Guarded by mu.
	mu   sync.Mutex
	next []int // by sender
	err  error // the first
}

func newChecker(senders int) *checker { return &checker{next: make([]int, senders)} }

func (k *checker) take(packet []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return
	}
	if len(packet) < numberedHeader || int(packet[0]) >= len(k.next) {
		k.err = fmt.Errorf("not a packet that was sent: %d bytes, % x…", len(packet), packet[:min(len(packet), 16)])
		return
	}
	sender, number := int(packet[0]), int(binary.BigEndian.Uint32(packet[1:]))
	if number != k.next[sender] {
		k.err = fmt.Errorf("sender %d: packet %d, want %d", sender, number, k.next[sender])
		return
	}
	for i, b := range packet[numberedHeader:] {
		if b != bodyByte(sender, number, i) {
			k.err = fmt.Errorf("sender %d, packet %d: byte %d of the body is wrong", sender, number, i)
			return
		}
	}
	k.next[sender]++
}

// state is how many packets of each sender came, and the first error.
func (k *checker) state() ([]int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]int(nil), k.next...), k.err
}

// total is how many packets came.
func (k *checker) total() (n int) {
	counts, _ := k.state()
	for _, c := range counts {
		n += c
	}
	return n
}

func (k *checker) failed() bool {
	_, err := k.state()
	return err != nil
}

// complete waits until every sender's packets came: sent[i] of sender i.
func (k *checker) complete(s *suite, what string, sent []int) {
	s.Helper()
	reached := func() bool {
		got, err := k.state()
		if err != nil {
			return true
		}
		for i, n := range sent {
			if got[i] < n {
				return false
			}
		}
		return true
	}
	// What still arrives is not late.
	for last, deadline := -1, time.Now().Add(patience); !reached() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if n := k.total(); n != last {
			last, deadline = n, time.Now().Add(patience)
		}
	}
	got, err := k.state()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
	for i, n := range sent {
		if got[i] != n {
			s.Fatalf("%s: of sender %d, %d packets were sent and %d came; all: sent %v, came %v", what, i, n, got[i], sent, got)
		}
	}
}

// pump receives everything that n gets and hands it to take, until the driver is closed or stop is.
func (n *node) pump(stop context.Context, take func(packet []byte)) {
	buf := make([]byte, n.MaxSendSize())
	for {
		size, _, err := n.Receive(buf)
		switch {
		case err != nil:
			return
		case size > 0:
			take(buf[:size])
		default:
			if n.WaitForData(stop) != nil {
				return
			}
		}
	}
}

// pumping is pump in the background, until the property is over or cancel is called.
func (n *node) pumping(take func(packet []byte)) (cancel func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.pump(ctx, take)
	}()
	cancel = func() {
		stop()
		n.s.closes("the end of WaitForData", done)
	}
	n.s.Cleanup(cancel)
	return cancel
}

// sendAll sends count numbered packets, waiting for room; it returns how many were taken before an error.
func sendAll(ctx context.Context, c driver.Conn, sender, count int, size func(number int) int) (sent int, err error) {
	var buf []byte
	for sent < count {
		buf = numbered(buf[:0], sender, sent, size(sent))
		if err := c.SendContext(ctx, buf); err != nil {
			return sent, err
		}
		sent++
	}
	return sent, nil
}

// smallPackets are sizes of a game's packets.
func smallPackets(number int) int { return number * 13 % 61 }

// mixedPackets has a large one now and then.
func mixedPackets(number int) int {
	if number%97 == 0 {
		return 3000
	}
	return number * 13 % 61
}

// fill sends numbered packets with Send, which must not block, until the peer and everything in between is full: Send
// fails and nothing moves any more. It returns how many were taken.
func (s *suite) fill(c driver.Conn, sender, first, size int) (sent int) {
	s.Helper()
	var buf []byte
	still, last := time.Now(), uint64(0)
	for deadline := time.Now().Add(patience); ; {
		buf = numbered(buf[:0], sender, first+sent, size)
		err := c.Send(buf)
		if err == nil {
			sent++
			still = time.Now()
			continue
		}
		if !errors.Is(err, driver.ErrOutboundFull) || driver.CodeOf(err) != driver.ErrSend {
			s.Fatalf("Send to a peer that does not read: %v", err)
		}
		if n := c.Stats().BytesSent; n != last {
			last, still = n, time.Now()
		}
		if time.Since(still) > settled {
			return sent
		}
		if time.Now().After(deadline) {
			s.Fatalf("Send to a peer that does not read never stalls: %d packets of %d bytes were taken", sent, size)
		}
		time.Sleep(time.Millisecond)
	}
}

// settled is how long nothing has to move for the suite to go on. Going on too early makes a property weaker, not fail.
const settled = 200 * time.Millisecond

// pace passes a random moment, so that the other goroutines are met in all kinds of places.
func pace(most time.Duration) {
	switch rand.IntN(3) {
	case 0:
		runtime.Gosched()
	case 1:
		for end := time.Now().Add(rand.N(most)); time.Now().Before(end); {
			runtime.Gosched()
		}
	default:
		time.Sleep(rand.N(most))
	}
}
