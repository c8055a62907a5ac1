package driver

import (
	"errors"
	"sync/atomic"
)

// Ends are the established connections that ended, by their reasons: the Err that each is named after, unless it says otherwise.
// Together they are Stats.Disconnected.
type Ends struct {
	PeerClosed   uint64
	Disconnected uint64 // by this side: ErrDisconnected, or a reason of the application's own
	Shutdown     uint64
	Hijacked     uint64
	IdleTimeout  uint64
	LoginTimeout uint64
	StallTimeout uint64
	Protocol     uint64
	RateLimited  uint64
	SlowConsumer uint64
	Panic        uint64
	Failed       uint64 // the system's or TLS's own error, e.g. a reset
}

// ends counts them. Any goroutine.
type ends struct {
	byReason             [len(endReasons)]atomic.Uint64
	failed, disconnected atomic.Uint64
}

// endReasons are those that have a counter of their own, those that are seen most first.
var endReasons = [...]error{ErrPeerClosed, ErrDisconnected, ErrShutdown, ErrIdleTimeout, ErrLoginTimeout, ErrStallTimeout,
	ErrProtocol, ErrRateLimited, ErrSlowConsumer, ErrPanic, ErrHijacked}

func (e *ends) count(reason error) {
	defer func() {
		if recover() != nil { // of the application's own
			e.disconnected.Add(1)
		}
	}()
	for i, r := range endReasons {
		if errors.Is(reason, r) {
			e.byReason[i].Add(1)
			return
		}
	}
	var own *Error
	if errors.As(reason, &own) {
		e.failed.Add(1)
		return
	}
	e.disconnected.Add(1)
}

func (e *ends) load() Ends {
	of := func(reason error) uint64 {
		for i, r := range endReasons {
			if r == reason {
				return e.byReason[i].Load()
			}
		}
		return 0
	}
	return Ends{
		PeerClosed:   of(ErrPeerClosed),
		Disconnected: of(ErrDisconnected) + e.disconnected.Load(),
		Shutdown:     of(ErrShutdown),
		Hijacked:     of(ErrHijacked),
		IdleTimeout:  of(ErrIdleTimeout),
		LoginTimeout: of(ErrLoginTimeout),
		StallTimeout: of(ErrStallTimeout),
		Protocol:     of(ErrProtocol),
		RateLimited:  of(ErrRateLimited),
		SlowConsumer: of(ErrSlowConsumer),
		Panic:        of(ErrPanic),
		Failed:       e.failed.Load(),
	}
}
