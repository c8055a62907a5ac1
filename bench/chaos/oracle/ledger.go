package oracle

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"gridstream/driver"
)

// Ledger keeps a driver's events, as one of its subscribers. Any goroutine.
type Ledger struct {
	// Guarded by mu.
	mu        sync.Mutex
	conns     map[uint64]*entry // by Conn.ID
	forgotten int               // established once, ended once
	failed    int               // ConnectTo that came to nothing
	errs      []error
}

type entry struct {
	up, down int
	reason   error
}

// OnConnectionEstablished implements driver.Subscriber.
func (l *Ledger) OnConnectionEstablished(ev driver.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entryLocked(ev.Conn)
	if e.up++; e.up > 1 || e.down > 0 {
		l.errs = append(l.errs, fmt.Errorf("%v: Established %d times, after %d Disconnected", ev.Address, e.up, e.down))
	}
}

// OnConnectionDisconnected implements driver.Subscriber.
func (l *Ledger) OnConnectionDisconnected(ev driver.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ev.Reason == nil {
		l.errs = append(l.errs, fmt.Errorf("%v: Disconnected without a reason", ev.Address))
	}
	if ev.Conn == nil {
		l.failed++
		return
	}
	e := l.entryLocked(ev.Conn)
	e.down, e.reason = e.down+1, ev.Reason
	if e.up != 1 || e.down != 1 {
		l.errs = append(l.errs, fmt.Errorf("%v: Disconnected %d times, after %d Established", ev.Address, e.down, e.up))
	}
}

func (l *Ledger) entryLocked(c driver.Conn) *entry {
	e := l.conns[c.ID()]
	if e == nil {
		if l.conns == nil {
			l.conns = make(map[uint64]*entry)
		}
		e = &entry{}
		l.conns[c.ID()] = e
	}
	return e
}

// End is why a connection ended; nil while it has not.
func (l *Ledger) End(c driver.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.conns[c.ID()]; e != nil {
		return e.reason
	}
	return nil
}

// Failed counts the ConnectTo that came to nothing.
func (l *Ledger) Failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Counts are the connections that were established, and those of them that ended.
func (l *Ledger) Counts() (established, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	established, ended = l.forgotten, l.forgotten
	for _, e := range l.conns {
		established += e.up
		ended += e.down
	}
	return established, ended
}

// Forget drops the connections that are over, but for their number, so that a long run does not grow.
func (l *Ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.conns {
		if e.up == 1 && e.down == 1 {
			delete(l.conns, id)
			l.forgotten++
		}
	}
	if len(l.conns) == 0 {
		l.conns = nil
	}
}

// Err is what was wrong so far.
func (l *Ledger) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}

// Closed is Err of a driver that is closed: then each Established has its Disconnected.
func (l *Ledger) Closed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := slices.Clone(l.errs)
	for id, e := range l.conns {
		if e.up != e.down {
			errs = append(errs, fmt.Errorf("connection %d: Established %d times, Disconnected %d times", id, e.up, e.down))
		}
	}
	return errors.Join(errs...)
}
