//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gridstream/bench/chaos/kind"
	"gridstream/bench/chaos/oracle"
	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// address is where a server is.
type address struct {
	Kind kind.Kind
	Addr string
}

// The first byte of a packet tells what to do with it, after it has been echoed.
const (
	doEcho   = 'E'
	doPause  = 'P' // stop reading for a moment
	doHijack = 'H' // take the connection out, and back in where that can be
)

// settleWithin is how long what is left may take to go.
const settleWithin = 30 * time.Second

// servers are one of each kind.
type servers struct {
	all     []driver.Driver
	ledgers []*oracle.Ledger // of each

	hijacked, adopted atomic.Int64

	busy sync.WaitGroup // pauses and hijacks
}

func runServers(in io.Reader, out io.Writer) (err error) {
	s := &servers{}
	defer func() {
		s.busy.Wait()
		for i, d := range s.all {
			err = errors.Join(err, d.Close(), s.ledgers[i].Closed())
		}
	}()
	return answers(in, out, func(line []byte) (any, error) {
		var command string
		if err := json.Unmarshal(line, &command); err != nil {
			return nil, err
		}
		switch command {
		case "listen":
			return s.listen()
		case "settle":
			s.busy.Wait()
			for end := time.Now().Add(settleWithin); s.connections() > 0 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			for end := time.Now().Add(settleWithin); s.open() > 0 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
		}
		return s.sample(), nil
	})
}

func (s *servers) listen() (addrs []address, err error) {
	desc, err := drivertest.Development()
	if err != nil {
		return nil, err
	}
	for _, k := range kind.All {
		var d driver.Driver
		d, err = k.New(driver.Config{
			OnPacket:         func(c driver.Conn, packet []byte) { s.serve(d, c, packet) },
			HandshakeTimeout: 20 * time.Second, // thousands come at once
			LingerTimeout:    time.Second,
		}, desc)
		if err != nil {
			return nil, err
		}
		ledger := &oracle.Ledger{}
		s.all, s.ledgers = append(s.all, d), append(s.ledgers, ledger)
		d.Events().Subscribe(ledger)
		if err := d.Initialize(driver.Bind{Address: "127.0.0.1"}); err != nil {
			return nil, err
		}
		if err := d.StartListen(0); err != nil {
			return nil, err
		}
		addrs = append(addrs, address{k, fmt.Sprintf("127.0.0.1:%d", d.Port())})
	}
	return addrs, nil
}

func (s *servers) serve(d driver.Driver, c driver.Conn, packet []byte) {
	err := c.Send(packet)
	if u, hijacking := c.Value().(*unsent); hijacking && err != nil {
		u.keep(packet)
		return
	}
	switch packet[0] {
	case doPause:
		c.PauseReading()
		s.busy.Add(1)
		time.AfterFunc(20*time.Millisecond, func() {
			defer s.busy.Done()
			c.ResumeReading()
		})
	case doHijack:
		u := &unsent{}
		c.SetValue(u)
		s.busy.Go(func() {
			nc, err := c.Hijack()
			if err != nil {
				return // gone
			}
			s.hijacked.Add(1)
			if _, secure := c.TLS(); secure {
				nc.Close()
				return
			}
			if _, err := nc.Write(u.frames()); err != nil {
				nc.Close()
				return
			}
			if _, err := d.Adopt(nc); err == nil {
				s.adopted.Add(1)
			}
		})
	}
}

// unsent is the echoes of packets that were delivered when Hijack had begun, and Send said that it was too late.
type unsent struct {
	// Guarded by mu.
	mu    sync.Mutex
	bytes []byte
}

func (u *unsent) keep(packet []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes = driver.LengthPrefix16BE.AppendFrame(u.bytes, packet)
}

// frames are complete once Hijack has returned.
func (u *unsent) frames() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes
}

func (s *servers) connections() (n int) {
	for _, d := range s.all {
		n += d.NumberOfConnections()
	}
	return n
}

// counts are those that were established, and those of them that ended, by the events.
func (s *servers) counts() (established, ended int) {
	for _, l := range s.ledgers {
		up, down := l.Counts()
		established, ended = established+up, ended+down
	}
	return established, ended
}

// open are those that ended not yet, by the events.
func (s *servers) open() int {
	established, ended := s.counts()
	return established - ended
}

func (s *servers) sample() sample {
	var wrong error
	for _, l := range s.ledgers {
		wrong = errors.Join(wrong, l.Err())
		l.Forget()
	}
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	descriptors, _ := os.ReadDir("/proc/self/fd")
	v := sample{
		Heap:        float64(m.HeapAlloc),
		Goroutines:  float64(runtime.NumGoroutine()),
		Descriptors: float64(len(descriptors)),
		Connections: s.connections(),
		Hijacked:    int(s.hijacked.Load()),
		Adopted:     int(s.adopted.Load()),
	}
	v.Established, v.Ended = s.counts()
	if wrong != nil {
		v.Wrong = wrong.Error()
	}
	return v
}
