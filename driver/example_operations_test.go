package driver_test

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"gridstream/driver"
)

// farewell tells players, when the server shuts down, to come back later: a driver.ShutdownSubscriber.
type farewell struct {
	driver.SubscriberFuncs
	d driver.Driver
}

// OnShutdown is called once, before Shutdown closes the first connection.
func (f farewell) OnShutdown() {
	f.d.Broadcast([]byte("the server restarts: come back in a minute"), nil)
}

// A server that ends when its supervisor says so, over twenty seconds, and says what it could not deliver.
func Example_operations() {
	d, err := driver.New(driver.Config{
		Logger:              slog.Default(),
		ShutdownSpread:      20 * time.Second, // players do not all come back in the same moment
		MaxConnections:      18_000,           // of RLIMIT_NOFILE 20,000
		MaxConnectionsPerIP: 64,
		LoginTimeout:        10 * time.Second,
		IdleTimeout:         90 * time.Second,
		PacketsPerSecond:    200,
		BytesPerSecond:      64 << 10,
		OnPacket:            func(c driver.Conn, packet []byte) { c.Authenticated() },
	})
	if err != nil {
		log.Fatal(err)
	}
	d.Events().Subscribe(farewell{d: d})
	if err := d.Initialize(driver.Bind{Port: 7777}); err != nil {
		log.Fatal(err)
	}
	if err := d.StartListen(0); err != nil {
		log.Fatal(err)
	}

	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	<-terminated.Done()
	grace, cancel := context.WithTimeout(context.Background(), 27*time.Second) // less than the supervisor's
	defer cancel()
	err = d.Shutdown(grace)
	var left *driver.LeftError
	if errors.As(err, &left) {
		slog.Warn("players were cut off", "connections", left.Connections, "bytes", left.QueuedBytes)
	}
}
