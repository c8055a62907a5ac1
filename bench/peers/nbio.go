package peers

import (
	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"

	"gridstream/bench"
)

// Nbio is nbio with its defaults.
func Nbio() bench.Impl {
	return bench.Impl{Name: "nbio", Start: startNbio, Only: plainAndPushed}
}

func startNbio(o bench.Options) (*bench.Server, error) {
	logging.SetLevel(logging.LevelNone)
	conns := newRegistry[*nbio.Conn]()
	engine := nbio.NewEngine(nbio.Config{
		Network:            "tcp4",
		Addrs:              []string{"127.0.0.1:0"},
		MaxWriteBufferSize: 6 * 1024 * 1024,
	})
	engine.OnOpen(func(c *nbio.Conn) {
		conns.add(c)
		if o.Welcome != nil {
			_, _ = c.Write(frame(o.Welcome))
		}
	})
	engine.OnClose(func(c *nbio.Conn, _ error) { conns.remove(c) })
	engine.OnData(answerNbio)
	if err := engine.Start(); err != nil {
		return nil, err
	}
	return &bench.Server{
		Addr:        engine.Addrs[0],
		Connections: conns.len,
		Events:      conns.events,
		Broadcast: func(packet []byte) int {
			f := frame(packet)
			return conns.each(func(c *nbio.Conn) error {
				_, err := c.Write(f)
				return err
			})
		},
		Close: func() error {
			engine.Stop()
			return nil
		},
	}, nil
}

// answerNbio answers all packets that are there with one write. The beginning of the next one is the connection's session.
func answerNbio(c *nbio.Conn, data []byte) {
	if begun, ok := c.Session().([]byte); ok {
		data = append(begun, data...)
		c.SetSession(nil)
	}
	n := whole(data)
	if n > 0 {
		_, _ = c.Write(data[:n])
	}
	if n < len(data) {
		c.SetSession(append([]byte(nil), data[n:]...))
	}
}
