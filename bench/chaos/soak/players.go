//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// order is what the players' process is told first.
type order struct {
	Servers []address
	Players int
}

// playerCounts are the players' since they began.
type playerCounts struct {
	Sessions, Answers, Reset, Refused, Wrong int
	FirstWrong                               string
}

type players struct {
	ctx context.Context

	// Guarded by mu.
	mu     sync.Mutex
	counts playerCounts
}

func runPlayers(in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	p := &players{ctx: ctx}
	var playing sync.WaitGroup
	begun := false
	return answers(in, out, func(line []byte) (any, error) {
		if !begun {
			begun = true
			var o order
			if err := json.Unmarshal(line, &o); err != nil {
				return nil, err
			}
			for i := range o.Players {
				playing.Go(func() {
					p.rest(5 * time.Second) // they come over a while
					for ctx.Err() == nil {
						p.session(o.Servers[i%len(o.Servers)])
					}
				})
			}
		} else {
			stop()
			playing.Wait()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.counts, nil
	})
}

func (p *players) count(f func(*playerCounts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.counts)
}

// rest is up to d long.
func (p *players) rest(d time.Duration) {
	t := time.NewTimer(rand.N(d))
	defer t.Stop()
	select {
	case <-p.ctx.Done():
	case <-t.C:
	}
}

// session is one player's visit: it ends in one of several ways.
func (p *players) session(server address) {
	tcp, err := net.DialTimeout("tcp", server.Addr, 20*time.Second)
	if err != nil {
		p.count(func(c *playerCounts) { c.Refused++ })
		p.rest(time.Second)
		return
	}
	defer tcp.Close()
	nc := tcp
	if server.Kind.TLS {
		nc = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	}
	p.count(func(c *playerCounts) { c.Sessions++ })
	for range 1 + rand.IntN(20) {
		do := []byte{doEcho, doEcho, doEcho, doEcho, doPause, doHijack}[rand.IntN(6)]
		if err := p.trip(nc, do); err != nil {
			p.wrong(fmt.Errorf("%v: %w", server.Kind, err))
			return
		}
		if do == doHijack && server.Kind.TLS {
			return // that was the end of it
		}
		if p.rest(2 * time.Second); p.ctx.Err() != nil {
			break
		}
	}
	switch rand.IntN(4) {
	case 0:
		_ = tcp.(*net.TCPConn).SetLinger(0)
		p.count(func(c *playerCounts) { c.Reset++ })
	case 1:
		_, _ = nc.Write([]byte{0, 100, doEcho}) // and not the rest
	default:
		nc.Close()
	}
}

// trip sends a burst of packets, of which the last says do, and looks that they come back.
func (p *players) trip(nc net.Conn, do byte) error {
	var sent []byte
	for range rand.IntN(5) {
		sent = p.packet(sent, doEcho)
	}
	sent = p.packet(sent, do)
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := nc.Write(sent); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(nc, got); err != nil {
		return fmt.Errorf("%q: reading %d bytes: %w", do, len(sent), err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("not what was sent: % x, want % x", got[:min(len(got), 32)], sent[:min(len(sent), 32)])
	}
	p.count(func(c *playerCounts) { c.Answers++ })
	return nil
}

func (p *players) packet(dst []byte, do byte) []byte {
	size := 1 + rand.IntN(60)
	if rand.IntN(50) == 0 {
		size = 3000
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(size))
	dst = append(dst, do)
	for range size - 1 {
		dst = append(dst, byte(rand.Uint32()))
	}
	return dst
}

func (p *players) wrong(err error) {
	p.count(func(c *playerCounts) {
		if c.Wrong++; c.Wrong == 1 {
			c.FirstWrong = err.Error()
		}
	})
}
