package driver

import (
	"context"
	"errors"
	"fmt"
)

// Shutdown implements Driver.
func (d *core) Shutdown(ctx context.Context) error {
	d.beginClosing()
	d.registry.each(func(c *conn) bool { c.Close(ErrShutdown); return true })
	if d.security != nil {
		d.security.abandonHandshakes()
	}
	if inCallback() {
		go d.Shutdown(ctx)
		return &Error{Op: "Shutdown", Code: ErrSocketClose, Err: errInCallback}
	}
	var err error
	select {
	case <-d.empty:
	case <-ctx.Done():
		err = &Error{Op: "Shutdown", Code: ErrSocketClose, Err: ctx.Err()}
	}
	return errors.Join(err, d.Close())
}

// beginClosing lets nothing new in.
func (d *core) beginClosing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Swap(true) {
		return
	}
	if err := d.stopListenLocked(); err != nil {
		d.cfg.Logger.Warn("driver: closing the listener", "err", err)
	}
	for _, dial := range d.dials {
		dial.giveUp(ErrShutdown)
	}
	d.emptyLocked()
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
		if !inUpdate() {
			<-closed
		}
		return nil
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
	d.deliverRest()
	if d.inbox != nil {
		close(d.inbox.closed)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bound != nil {
		d.bound.Close()
	}
	return nil
}

// errInCallback: the goroutine that a callback runs on is one that closing waits for.
var errInCallback = fmt.Errorf("%w: it goes on behind it", ErrInCallback)
