package bench

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"gridstream/driver"
	"gridstream/driver/stdnet"
)

// secureDriver is a driver over TLS.
type secureDriver interface {
	driver.Driver
	InitializeSecurity(driver.Bind, driver.SecureDesc) error
}

// drivers are the implementations of driver.Driver.
var drivers = []struct {
	name      string
	new       func(driver.Config) (driver.Driver, error)
	newSecure func(driver.Config) (secureDriver, error)
}{
	{"loop", plain(driver.New), secure(driver.NewSecure)},
	{"stdnet", plain(stdnet.New), secure(stdnet.NewSecure)},
}

func plain[D driver.Driver](make func(driver.Config) (D, error)) func(driver.Config) (driver.Driver, error) {
	return func(c driver.Config) (driver.Driver, error) { return make(c) }
}

func secure[D secureDriver](make func(driver.Config) (D, error)) func(driver.Config) (secureDriver, error) {
	return func(c driver.Config) (secureDriver, error) { return make(c) }
}

// Drivers are the implementations of driver.Driver.
func Drivers() []Impl {
	var impls []Impl
	for _, d := range drivers {
		impls = append(impls, Impl{Name: d.name, Start: func(o Options) (*Server, error) {
			cfg := driver.Config{EventLoops: Loops}
			if o.Polled {
				cfg.Dispatch = driver.DispatchOnUpdate
			} else {
				cfg.OnPacket = func(c driver.Conn, p []byte) { _ = c.Send(p) }
			}
			bind := driver.Bind{Address: "127.0.0.1"}
			if o.Identity == nil {
				drv, err := d.new(cfg)
				if err != nil {
					return nil, err
				}
				return serve(drv, drv.Initialize(bind), o)
			}
			drv, err := d.newSecure(cfg)
			if err != nil {
				return nil, err
			}
			desc := driver.SecureDesc{CertificatePEM: o.Identity.CertificatePEM, PrivateKeyPEM: o.Identity.PrivateKeyPEM}
			return serve(drv, drv.InitializeSecurity(bind, desc), o)
		}})
	}
	return impls
}

// serve has d listen, if err, of its initialization, is nil.
func serve(d driver.Driver, err error, o Options) (*Server, error) {
	var established, disconnected atomic.Uint64
	group := driver.NewGroup()
	d.Events().Subscribe(driver.SubscriberFuncs{
		Established: func(ev driver.Event) {
			if o.Group {
				group.Add(ev.Conn)
			}
			if o.Welcome != nil {
				_ = ev.Conn.Send(o.Welcome)
			}
			established.Add(1)
		},
		Disconnected: func(driver.Event) { disconnected.Add(1) },
	})
	if err == nil {
		err = d.StartListen(0)
	}
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	ended := func() {}
	if o.Polled {
		ended = poll(d)
	}
	return &Server{
		Addr:        net.JoinHostPort("127.0.0.1", strconv.Itoa(int(d.Port()))),
		Connections: d.NumberOfConnections,
		Events:      func() Events { return Events{established.Load(), disconnected.Load()} },
		Broadcast:   func(packet []byte) int { return d.Broadcast(packet, nil) },
		Group:       group.Broadcast,
		Senders: func() (senders []func([]byte) error) {
			for c := range d.Conns() {
				senders = append(senders, func(packet []byte) error { return c.SendContext(context.Background(), packet) })
			}
			return senders
		},
		Close: func() error {
			err := d.Close()
			ended()
			return err
		},
	}, nil
}

// poll is a game loop that waits for data and answers all of it, until d is closed. The function that it returns waits for its end.
func poll(d driver.Driver) (ended func()) {
	var game sync.WaitGroup
	game.Go(func() {
		packet := make([]byte, d.MaxSendSize())
		for {
			d.Update()
			for {
				n, from, err := d.Receive(packet)
				if err != nil || n == 0 {
					break
				}
				_ = d.Send(from, packet[:n])
			}
			if d.WaitForData(context.Background()) != nil {
				return
			}
		}
	})
	return game.Wait
}
