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

// playersReport is what they saw since the last. A packet that had to wait for the answer to the one before counts from when it was due, so
// that a server that stands still is not measured once only.
type playersReport struct {
	Answered, Lost int // packets; players
	P50, P99       time.Duration
	Max            time.Duration // also of packets that have no answer yet
	Err            string        // of one who was lost
}

// player sends a packet each 50 ms and waits for its echo.
const playerTick = 50 * time.Millisecond

type players struct {
	stop chan struct{}
	lost atomic.Int64
	err  atomic.Pointer[error]

	// Guarded by mu.
	mu      sync.Mutex
	trips   []time.Duration
	waiting map[int]time.Time // of each player with a packet that has no answer yet, since when
}

// runPlayers answers each command with a report, the last with "stop".
func runPlayers(order []byte, commands <-chan string, say func(any)) error {
	var o playersOrder
	if err := json.Unmarshal(order, &o); err != nil {
		return err
	}
	p := &players{stop: make(chan struct{}), waiting: make(map[int]time.Time)}
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
		if err := trip(nc, 0); err != nil { // everybody is in before the first is measured
			return err
		}
		conns = append(conns, nc)
	}
	for i, nc := range conns {
		playing.Go(func() {
			defer nc.Close()
			if err := p.play(nc, i); err != nil {
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

func (p *players) play(nc net.Conn, player int) error {
	due := time.Now().Add(rand.N(playerTick)) // they do not all send in the same moment
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := uint32(player); ; n++ {
		since := due
		if early := time.Until(due); early > 0 {
			timer.Reset(early)
			select {
			case <-p.stop:
				return nil
			case <-timer.C:
			}
			since = time.Now() // the timer's delay is not the server's
		}
		select {
		case <-p.stop:
			return nil
		default:
		}
		p.mu.Lock()
		p.waiting[player] = since
		p.mu.Unlock()
		if err := trip(nc, n); err != nil {
			return err
		}
		p.mu.Lock()
		delete(p.waiting, player)
		p.trips = append(p.trips, time.Since(since))
		p.mu.Unlock()
		due = due.Add(playerTick)
	}
}

// trip sends a packet and waits for its echo.
func trip(nc net.Conn, n uint32) error {
	var packet, echo [2 + 16]byte
	binary.BigEndian.PutUint16(packet[:], 16)
	binary.BigEndian.PutUint32(packet[2:], n)
	packet[6] = playerPacket
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(packet[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, echo[:]); err != nil {
		return err
	}
	if echo != packet {
		return errors.New("not the packet that was sent")
	}
	return nil
}

func (p *players) report() playersReport {
	p.mu.Lock()
	trips := p.trips
	p.trips = nil
	r := playersReport{Answered: len(trips), Lost: int(p.lost.Load())}
	for _, since := range p.waiting {
		r.Max = max(r.Max, time.Since(since))
	}
	p.mu.Unlock()
	if err := p.err.Load(); err != nil {
		r.Err = fmt.Sprint(*err)
	}
	if slices.Sort(trips); len(trips) > 0 {
		r.P50, r.P99, r.Max = trips[len(trips)/2], trips[len(trips)*99/100], max(r.Max, trips[len(trips)-1])
	}
	return r
}
