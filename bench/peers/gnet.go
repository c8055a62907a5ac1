package peers

import (
	"context"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
	"go.uber.org/zap/zapcore"

	"gridstream/bench"
)

// Gnet is raw gnet: what the driver costs on top.
func Gnet() bench.Impl {
	return bench.Impl{Name: "gnet", Start: startGnet, Only: plainAndPushed}
}

// plainAndPushed: these have no TLS, and no game loop that polls.
func plainAndPushed(o bench.Options) bool { return o.Identity == nil && !o.Polled && !o.Group }

type gnetServer struct {
	gnet.BuiltinEventEngine
	engine  gnet.Engine
	booted  chan struct{}
	conns   *registry[gnet.Conn]
	welcome []byte
}

func startGnet(o bench.Options) (*bench.Server, error) {
	addr, err := freeAddress() // a port of the system's choice is not told
	if err != nil {
		return nil, err
	}
	s := &gnetServer{booted: make(chan struct{}), conns: newRegistry[gnet.Conn]()}
	if o.Welcome != nil {
		s.welcome = frame(o.Welcome)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- gnet.Run(s, "tcp4://"+addr, gnet.WithNumEventLoop(bench.Loops), gnet.WithTCPNoDelay(gnet.TCPNoDelay),
			gnet.WithLogLevel(logging.Level(zapcore.FatalLevel)))
	}()
	select {
	case err := <-ended:
		return nil, err
	case <-s.booted:
	}
	return &bench.Server{
		Addr:        addr,
		Connections: s.conns.len,
		Events:      s.conns.events,
		Broadcast: func(packet []byte) int {
			f := frame(packet)
			return s.conns.each(func(c gnet.Conn) error { return c.AsyncWrite(f, nil) })
		},
		Close: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := s.engine.Stop(ctx); err != nil {
				return err
			}
			return <-ended
		},
	}, nil
}

func (s *gnetServer) OnBoot(engine gnet.Engine) gnet.Action {
	s.engine = engine
	close(s.booted)
	return gnet.None
}

func (s *gnetServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	s.conns.add(c)
	return s.welcome, gnet.None
}

func (s *gnetServer) OnClose(c gnet.Conn, _ error) gnet.Action {
	s.conns.remove(c)
	return gnet.None
}

// OnTraffic answers all packets that are there with one write.
func (s *gnetServer) OnTraffic(c gnet.Conn) gnet.Action {
	buf, _ := c.Peek(-1)
	n := whole(buf)
	if n == 0 {
		return gnet.None
	}
	if _, err := c.Write(buf[:n]); err != nil {
		return gnet.Close
	}
	_, _ = c.Discard(n)
	return gnet.None
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
