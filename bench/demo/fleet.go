package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is the players of one process.
type fleet struct {
	// Immutable.
	order   order
	players []*player // by number
	dialer  dialer
	start   time.Time
	report  func(report)

	// Atomic: written by event loops.
	joined, failed, dropped, left atomic.Int64
	moves, unsent, acknowledged   atomic.Uint64
	states, stateGaps             atomic.Uint64
	roundTrips                    histogram
	playingSince, playedUntil     atomic.Int64  // clock
	connects                      chan struct{} // a token for each login under way
	changed                       chan struct{} // joined, failed, dropped or left did

	// Guarded by mu.
	mu           sync.Mutex
	phase        phase
	firstFailure string
	reported     *counts
}

const (
	loginsAtOnce = 256              // below the least common backlog
	pingEvery    = 10               // moves
	loginTimeout = 20 * time.Second // for the next welcome
	leaveTimeout = 10 * time.Second // for everybody's bye
)

var errNoWelcome = fmt.Errorf("no player was let in for %v", loginTimeout)

func newFleet(o order, send func(report)) (*fleet, error) {
	f := &fleet{
		order:    o,
		players:  make([]*player, o.Players),
		start:    time.Now(),
		report:   send,
		connects: make(chan struct{}, loginsAtOnce),
		changed:  make(chan struct{}, 1),
		reported: new(counts),
	}
	for i := range f.players {
		f.players[i] = &player{number: uint32(i), fleet: f}
	}
	var err error
	f.dialer, err = newDialer(f)
	return f, err
}

// play has everybody connect, move for the order's length, and leave. When ctx is done they leave early.
func (f *fleet) play(ctx context.Context) error {
	reporting, stop := context.WithCancel(context.Background())
	var reporter sync.WaitGroup
	reporter.Go(func() { f.reportEachSecond(reporting) })
	defer reporter.Wait()
	defer stop()

	if err := f.connect(ctx); err != nil {
		return err
	}
	var present []*player
	for _, p := range f.players {
		if p.in {
			present = append(present, p)
		}
	}
	if ctx.Err() == nil {
		f.move(ctx, present)
	}
	f.enter(leaving)
	f.leave(present)

	stop()
	reporter.Wait()
	closing, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	err := f.dialer.close(closing)
	f.enter(gone)
	return err
}

// connect returns when everybody is in or has failed, or ctx is done and those under way are.
func (f *fleet) connect(ctx context.Context) error {
	begun := 0
	for _, p := range f.players {
		select {
		case <-ctx.Done():
		case f.connects <- struct{}{}:
		case <-time.After(loginTimeout):
			return errNoWelcome
		}
		if ctx.Err() != nil {
			break
		}
		begun++
		if err := f.dialer.dial(p); err != nil {
			p.disconnected(err)
		}
	}
	patience, cancel := context.WithTimeout(context.Background(), loginTimeout)
	defer cancel()
	f.wait(patience, func() bool { return int(f.joined.Load()+f.failed.Load()) == begun })
	if patience.Err() != nil {
		return errNoWelcome
	}
	return nil
}

// move moves the players for the order's length.
func (f *fleet) move(ctx context.Context, present []*player) {
	ctx, cancel := context.WithTimeout(ctx, f.order.Length)
	defer cancel()
	f.playingSince.Store(int64(f.clock()))
	f.enter(playing)
	pace(ctx, movePeriod, func(n int) {
		for ; n < len(present); n += int(movePeriod / slice) {
			p := present[n]
			p.step((int(p.seq)+n/int(movePeriod/slice))%pingEvery == 0) // pings are spread over the rounds
		}
	})
	f.playedUntil.Store(int64(f.clock()))
}

// leave logs the players out and waits for their byes.
func (f *fleet) leave(present []*player) {
	for _, p := range present {
		_ = p.link.Send([]byte{kindLogout}) // fails only where the connection is gone
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	f.wait(ctx, func() bool { return f.left.Load()+f.dropped.Load() >= f.joined.Load() })
}

// wait returns when done says so, or ctx is done.
func (f *fleet) wait(ctx context.Context, done func() bool) {
	for !done() {
		select {
		case <-f.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fleet) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// lost counts a player that failed, and keeps the first one's reason.
func (f *fleet) lost(n *atomic.Int64, player uint32, reason error) {
	f.mu.Lock()
	if f.firstFailure == "" {
		f.firstFailure = fmt.Sprintf("player %d: %v", player, reason)
	}
	f.mu.Unlock()
	n.Add(1)
}

// clock is what players stamp their moves with.
func (f *fleet) clock() time.Duration { return time.Since(f.start) }

func (f *fleet) enter(p phase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = p
	f.reportLocked(false)
}

func (f *fleet) reportEachSecond(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.mu.Lock()
			f.reportLocked(true)
			f.mu.Unlock()
		}
	}
}

func (f *fleet) reportLocked(second bool) {
	trips := f.roundTrips.snapshot()
	r := report{
		Second:            second,
		Phase:             f.phase,
		Connecting:        time.Duration(f.playingSince.Load()),
		Played:            f.played(),
		Joined:            int(f.joined.Load()),
		Failed:            int(f.failed.Load()),
		Dropped:           int(f.dropped.Load()),
		FirstFailure:      f.firstFailure,
		MovesSent:         f.moves.Load(),
		MovesUnsent:       f.unsent.Load(),
		MovesAcknowledged: f.acknowledged.Load(),
		StatesReceived:    f.states.Load(),
		StateGaps:         f.stateGaps.Load(),
		Recent:            latencyOf(trips.since(f.reported)),
		Whole:             latencyOf(trips),
	}
	f.reported = trips
	f.report(r)
}

func (f *fleet) played() time.Duration {
	since, until := f.playingSince.Load(), f.playedUntil.Load()
	switch {
	case since == 0:
		return 0
	case until == 0:
		return f.clock() - time.Duration(since)
	}
	return time.Duration(until - since)
}
