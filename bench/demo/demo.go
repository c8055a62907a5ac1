package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"gridstream/driver"
)

// options are the flags.
type options struct {
	players int
	length  time.Duration
	dial    string
	secure  bool
}

const (
	shutdownTimeout = 5 * time.Second
	leaveGrace      = loginTimeout + 2*leaveTimeout // from an early end until the players' process must be gone

	firstWeighing = 1 // second of play
	weighingEvery = 4 // seconds
)

// demo is one run.
type demo struct {
	options options
	server  *server
	child   *child
	view    view

	certificate []byte // the server's, if it is secure

	baseline uint64 // live bytes before the first connection
	began    time.Time
	from, to sample // while playing
	last     sample // the previous row's
	latest   report
	recent   latency // the latest one with a round trip in it
	perConn  int     // bytes; 0: not known yet
	routines int     // goroutines, when perConn was taken
	rows     int     // while playing
}

// run plays until the time is up or ctx is done, and shows it on v.
func run(ctx context.Context, o options, v view, stderr io.Writer) (*summary, error) {
	var identity *driver.SecureDesc
	if o.secure {
		var err error
		if identity, err = newIdentity(); err != nil {
			return nil, err
		}
	}
	s, err := startServer(bindFor(o.dial), identity, o.players)
	if err != nil {
		return nil, err
	}
	d := &demo{options: o, server: s, view: v}
	if identity != nil {
		d.certificate = identity.CertificatePEM
	}
	err = d.play(ctx, stderr)
	v.end()

	closing, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err = errors.Join(err, s.shutdown(closing))
	if err != nil {
		return nil, err
	}
	return d.summarize(ctx.Err() != nil), nil
}

// play has the players' process play, and shows it.
func (d *demo) play(ctx context.Context, stderr io.Writer) error {
	var err error
	if d.child, err = startChild(stderr); err != nil {
		return fmt.Errorf("starting the players' process: %w", err)
	}
	liveBytes() // what pools hold goes with the second collection
	d.baseline = liveBytes()
	d.began = time.Now()
	d.last = d.server.sample()
	d.from, d.to = d.last, d.last
	if err = d.child.order(order{
		Port:    d.server.drv.Port(),
		Players: d.options.players,
		Length:  d.options.length,
		Dial:    d.options.dial,

		Certificate: d.certificate,
	}); err == nil {
		d.watch(ctx)
	} else {
		d.child.kill()
		for range d.child.reports {
		}
	}
	if waited := d.child.wait(); waited != nil || d.latest.Phase != gone {
		return errors.Join(err, fmt.Errorf("the players' process ended early: %v", waited))
	}
	return nil
}

// watch shows a row for each second's report, until the reports end.
func (d *demo) watch(ctx context.Context) {
	stop := ctx.Done()
	var tooLong <-chan time.Time
	for {
		select {
		case r, ok := <-d.child.reports:
			if !ok {
				return
			}
			d.take(r)
			if r.Second {
				d.show()
			}
		case <-stop:
			d.child.stop()
			stop, tooLong = nil, time.After(leaveGrace)
		case <-tooLong:
			d.child.kill()
		}
	}
}

// take notes what the players report.
func (d *demo) take(r report) {
	if r.Phase != d.latest.Phase {
		now := d.server.sample()
		switch r.Phase {
		case playing:
			d.from, d.to = now, now
		case leaving:
			if d.latest.Phase == playing {
				d.to = now
			}
		}
	}
	if r.Recent.Count > 0 {
		d.recent = r.Recent
	}
	d.latest = r
}

func (d *demo) show() {
	if d.latest.Phase == playing {
		if d.rows%weighingEvery == firstWeighing {
			d.weigh()
		}
		d.rows++
	}
	now := d.server.sample()
	d.view.show(row{
		phase:        d.latest.Phase,
		elapsed:      now.at.Sub(d.began),
		played:       d.latest.Played,
		length:       d.options.length,
		connections:  now.stats.Connections,
		established:  now.established,
		disconnected: now.disconnected,
		rates:        now.since(d.last),
		roundTrip:    d.recent,
		perConn:      d.perConn,
		goroutines:   runtime.NumGoroutine(),
	})
	d.last = now
}

// weigh measures what a connection takes in memory. It collects garbage for that.
func (d *demo) weigh() {
	n := d.server.drv.NumberOfConnections()
	if n == 0 {
		return
	}
	d.routines = runtime.NumGoroutine()
	if bytes := liveBytes(); bytes > d.baseline {
		d.perConn = int(bytes-d.baseline) / n
	}
}
