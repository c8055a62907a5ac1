//go:build unix

package stdnet_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// peer is the other side: bytes, and no driver.
type peer struct {
	nc   net.Conn
	got  *tally
	stop chan struct{}
	done sync.WaitGroup
	sent int   // after done
	err  error // after done; the writer's
}

// begin sends and receives until the end; taken is what came of it.
func (p *peer) begin(ctx context.Context, taken *tally) {
	p.done.Go(func() {
		var batch []byte
		for {
			select {
			case <-p.stop:
				if p.err == nil {
					p.err = p.nc.(interface{ CloseWrite() error }).CloseWrite()
				}
				return
			default:
			}
			batch = batch[:0]
			for range 1 + p.sent%7 {
				batch = append(batch, frame(appendNumbered(nil, p.sent))...)
				p.sent++
			}
			cut := len(batch) * 2 / 3 // so that packets come in pieces
			for _, piece := range [][]byte{batch[:cut], batch[cut:]} {
				if p.err == nil {
					_, p.err = p.nc.Write(piece)
				}
			}
			if p.err == nil {
				p.err = taken.await(ctx, p.sent-window)
			}
			if p.err != nil {
				<-p.stop
				return
			}
		}
	})
	p.done.Go(func() {
		r := bufio.NewReader(p.nc)
		for {
			packet, err := readFrame(r)
			if err != nil {
				if err != io.EOF {
					p.got.fail(err)
				}
				return
			}
			p.got.take(packet)
		}
	})
}

// finish waits for the end, and returns how many packets were sent.
func (p *peer) finish() (int, error) {
	p.done.Wait()
	return p.sent, errors.Join(p.err, p.nc.Close())
}

// tally counts numbered packets and looks at their order. Any goroutine.
type tally struct {
	// Guarded by mu.
	mu      sync.Mutex
	changed sync.Cond // n or err
	n       int
	err     error // the first
}

func newTally() *tally {
	t := &tally{}
	t.changed.L = &t.mu
	return t
}

func (t *tally) take(packet []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if want := appendNumbered(nil, t.n); t.err == nil && string(packet) != string(want) {
		t.err = fmt.Errorf("packet %d is wrong: % x…", t.n, packet[:min(len(packet), 8)])
	}
	t.n++
	t.changed.Broadcast()
}

func (t *tally) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
	t.changed.Broadcast()
}

func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

func (t *tally) await(ctx context.Context, n int) error {
	stop := context.AfterFunc(ctx, func() { t.fail(ctx.Err()) })
	defer stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.n < n && t.err == nil {
		t.changed.Wait()
	}
	return t.err
}

func (t *tally) complete(what string, sent int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil && t.n != sent {
		return fmt.Errorf("%d packets were sent, %d %s", sent, t.n, what)
	}
	return t.err
}

// appendNumbered appends the packet with that number: it, and a body that follows from it.
func appendNumbered(dst []byte, number int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(number))
	for i := range number * 13 % 101 {
		dst = append(dst, byte(number*7+i))
	}
	return dst
}

func frame(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, packet)
	return packet, err
}
