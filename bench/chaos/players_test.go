//go:build linux

package chaos_test

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// playersOrder is what the players' process is told.
type playersOrder struct {
	Server  string
	TLS     bool
	Players int
}

// playersReport is what they saw since the last.
type playersReport struct {
	Answered, Lost int // packets; players
	P50, P99, Max  time.Duration
	Err            string // of one who was lost
}

// player sends a packet each 50 ms and waits for its echo.
const playerTick = 50 * time.Millisecond

type players struct {
	stop chan struct{}
	lost atomic.Int64
	err  atomic.Pointer[error]

	// Guarded by mu.
	mu    sync.Mutex
	trips []time.Duration
}

// runPlayers answers each command with a report, the last with "stop".
func runPlayers(order []byte, commands <-chan string, say func(any)) error {
	var o playersOrder
	if err := json.Unmarshal(order, &o); err != nil {
		return err
	}
	p := &players{stop: make(chan struct{})}
	var playing sync.WaitGroup
	var conns []net.Conn
	for range o.Players {
		nc, err := net.Dial("tcp", o.Server)
		if err != nil {
			return err
		}
		if o.TLS {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		if _, err := trip(nc, 0); err != nil { // everybody is in before the first is measured
			return err
		}
		conns = append(conns, nc)
	}
	for i, nc := range conns {
		playing.Go(func() {
			defer nc.Close()
			if err := p.play(nc, uint32(i)); err != nil {
				p.lost.Add(1)
				p.err.Store(&err)
			}
		})
	}
	say("playing")
	for command := range commands {
		if command == "stop" {
			close(p.stop)
			playing.Wait()
		}
		say(p.report())
	}
	return nil
}

func (p *players) play(nc net.Conn, seed uint32) error {
	time.Sleep(rand.N(playerTick)) // they do not all send in the same moment
	tick := time.NewTicker(playerTick)
	defer tick.Stop()
	for n := seed; ; n++ {
		select {
		case <-p.stop:
			return nil
		case <-tick.C:
		}
		d, err := trip(nc, n)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.trips = append(p.trips, d)
		p.mu.Unlock()
	}
}

// trip sends a packet and waits for its echo.
func trip(nc net.Conn, n uint32) (time.Duration, error) {
	var packet, echo [2 + 16]byte
	binary.BigEndian.PutUint16(packet[:], 16)
	binary.BigEndian.PutUint32(packet[2:], n)
	packet[6] = playerPacket
	began := time.Now()
	_ = nc.SetDeadline(began.Add(patience))
	if _, err := nc.Write(packet[:]); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(nc, echo[:]); err != nil {
		return 0, err
	}
	if echo != packet {
		return 0, errors.New("not the packet that was sent")
	}
	return time.Since(began), nil
}

func (p *players) report() playersReport {
	p.mu.Lock()
	trips := p.trips
	p.trips = nil
	p.mu.Unlock()
	r := playersReport{Answered: len(trips), Lost: int(p.lost.Load())}
	if err := p.err.Load(); err != nil {
		r.Err = fmt.Sprint(*err)
	}
	if slices.Sort(trips); len(trips) > 0 {
		r.P50, r.P99, r.Max = trips[len(trips)/2], trips[len(trips)*99/100], trips[len(trips)-1]
	}
	return r
}
