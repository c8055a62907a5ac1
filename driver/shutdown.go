package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Shutdown implements Driver.
func (d *core) Shutdown(ctx context.Context) error {
	if d.beginClosing() {
		d.bus.dispatchShutdown(func(v any, stack []byte) { d.logPanic(netip.AddrPort{}, v, stack) })
	}
	d.abandonPending()
	if inCallback() {
		go d.shutdownBehind(ctx)
		return &Error{Op: "Shutdown", Code: ErrSocketClose, Err: errInCallback}
	}
	d.closeAll(ctx)
	var err error
	select {
	case <-d.empty:
	case <-ctx.Done():
		if left := d.left(ctx.Err()); left.Connections > 0 {
			err = &Error{Op: "Shutdown", Code: ErrSocketClose, Err: left}
		}
	}
	return errors.Join(err, d.Close())
}

// shutdownBehind goes on with Shutdown behind a callback, which has returned by then, and may have cancelled ctx: its deadline counts.
func (d *core) shutdownBehind(ctx context.Context) {
	behind := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		behind, cancel = context.WithDeadline(behind, deadline)
		defer cancel()
	}
	if err := d.Shutdown(behind); err != nil {
		d.cfg.Logger.Warn("driver: shutting down behind a callback", "err", err)
	}
}

// closeAll closes the established connections, spread over Config.ShutdownSpread, or three quarters of what ctx leaves.
func (d *core) closeAll(ctx context.Context) {
	var all []*conn
	d.registry.each(func(c *conn) bool { all = append(all, c); return true })
	spread, begun := d.cfg.ShutdownSpread, time.Now()
	if deadline, ok := ctx.Deadline(); ok {
		spread = min(spread, max(0, deadline.Sub(begun)/4*3))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, c := range all {
		const atOnce = time.Millisecond // waiting for less is not worth it
		due := time.Duration(float64(spread) * float64(i) / float64(len(all)))
		if wait := due - time.Since(begun); wait > atOnce {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-d.empty:
				return
			case <-ctx.Done():
				return
			}
		}
		c.Close(ErrShutdown)
	}
}

// left is what is not closed.
func (d *core) left(cause error) *LeftError {
	d.mu.Lock()
	e := &LeftError{Connections: d.attached, Err: cause}
	d.mu.Unlock()
	d.registry.each(func(c *conn) bool { e.QueuedBytes += c.link.Buffered(); return true })
	return e
}

// beginClosing lets nothing new in; false when that was begun before.
func (d *core) beginClosing() (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Swap(true) {
		return false
	}
	if err := d.stopListenLocked(); err != nil {
		d.cfg.Logger.Warn("driver: closing the listener", "err", err)
	}
	for _, dial := range d.dials {
		dial.giveUp(ErrShutdown)
	}
	d.emptyLocked()
	return true
}

// isPending notes that c has a link and is not established: it has yet to say whom it is from, or to shake hands.
func (d *core) isPending(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending == nil {
		d.pending = make(map[*conn]struct{})
	}
	d.pending[c] = struct{}{}
}

func (d *core) notPending(c *conn) {
	if c.registered {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pending, c)
}

// abandonPending ends them when the driver shuts down.
func (d *core) abandonPending() {
	d.mu.Lock()
	all := slices.Collect(maps.Keys(d.pending))
	d.mu.Unlock()
	for _, c := range all {
		c.Close(ErrShutdown)
	}
}

// Close implements Driver.
func (d *core) Close() error {
	d.beginClosing()
	if inCallback() {
		go d.Close()
		return &Error{Op: "Close", Code: ErrSocketClose, Err: errInCallback}
	}
	d.mu.Lock()
	if closed := d.closed; closed != nil {
		d.mu.Unlock()
		return d.awaitClosed(closed)
	}
	closed := make(chan struct{})
	d.closed = closed
	d.mu.Unlock()

	defer close(closed)
	if t := d.transport(); t != nil {
		t.Close()
	}
	d.tasks.Wait()
	if d.security != nil {
		d.security.stop()
	}
	if d.inbox != nil {
		close(d.inbox.closed) // before the Update under way is waited for, whose subscriber may be in WaitForData
	}
	d.deliverRest()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bound != nil {
		d.bound.Close()
	}
	return nil
}

// awaitClosed waits for another Close, unless that waits for the Update that the caller is called by.
func (d *core) awaitClosed(closed <-chan struct{}) error {
	if d.inUpdate() {
		select {
		case <-closed:
		default:
			return &Error{Op: "Close", Code: ErrSocketClose, Err: errInCallback}
		}
	}
	<-closed
	return nil
}

// errInCallback: the goroutine that a callback runs on is one that closing waits for.
var errInCallback = fmt.Errorf("%w: it goes on behind it", ErrInCallback)
