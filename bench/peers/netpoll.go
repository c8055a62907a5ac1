//go:build !windows

package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cloudwego/netpoll"
	"github.com/cloudwego/netpoll/mux"

	"gridstream/bench"
)

// Netpoll is CloudWeGo's netpoll with its defaults.
func Netpoll() bench.Impl {
	return bench.Impl{Name: "netpoll", Start: startNetpoll, Only: plainAndPushed}
}

// netpollConn is a connection, with a queue where others than its handler send.
type netpollConn struct {
	netpoll.Connection
	queue *mux.ShardQueue
}

func startNetpoll(o bench.Options) (*bench.Server, error) {
	conns := newRegistry[*netpollConn]()
	listener, err := netpoll.CreateListener("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	loop, err := netpoll.NewEventLoop(answerNetpoll,
		netpoll.WithOnConnect(func(ctx context.Context, c netpoll.Connection) context.Context {
			nc := &netpollConn{Connection: c}
			if o.Broadcasts {
				nc.queue = mux.NewShardQueue(1, c) // with more shards packets overtake one another
			}
			conns.add(nc)
			_ = c.AddCloseCallback(func(netpoll.Connection) error {
				conns.remove(nc)
				return nil
			})
			if o.Welcome != nil {
				_, _ = c.Writer().WriteBinary(frame(o.Welcome))
				_ = c.Writer().Flush()
			}
			return ctx
		}))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- loop.Serve(listener) }()
	return &bench.Server{
		Addr:        listener.Addr().String(),
		Connections: conns.len,
		Events:      conns.events,
		Broadcast: func(packet []byte) int {
			f := frame(packet)
			return conns.each(func(c *netpollConn) error {
				c.queue.Add(func() (netpoll.Writer, bool) {
					w := netpoll.NewLinkBuffer(len(f))
					_, _ = w.WriteBinary(f)
					return w, false
				})
				return nil
			})
		},
		Close: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			return errors.Join(loop.Shutdown(ctx), <-ended)
		},
	}, nil
}

// answerNetpoll answers the packets that are there with one flush. For the rest of a packet it waits, as Next does.
func answerNetpoll(_ context.Context, c netpoll.Connection) error {
	r, w := c.Reader(), c.Writer()
	for r.Len() > 0 {
		header, err := r.Peek(2)
		if err != nil {
			return err
		}
		f, err := r.Next(2 + int(binary.BigEndian.Uint16(header)))
		if err != nil {
			return err
		}
		out, err := w.Malloc(len(f))
		if err != nil {
			return err
		}
		copy(out, f)
	}
	if err := r.Release(); err != nil {
		return err
	}
	return w.Flush()
}
