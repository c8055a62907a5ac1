// Chat is a small, whole server: players say their names, and hear what any of them says. Its transport is chosen by one line.
//
//	go run ./driver/examples/chat -listen 127.0.0.1:7777
//	printf '\000\003ada\000\005hello' | nc 127.0.0.1 7777
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"gridstream/driver"
	// A goroutine for each connection. For event loops it is: transport "gridstream/driver"
	transport "gridstream/driver/stdnet"
)

const longestName = 20

func main() {
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	listen := flag.String("listen", "127.0.0.1:7777", "`address` to listen on; port 0 is one of the system's choice")
	flag.Parse()
	if err := run(*listen); err != nil {
		log.Fatal(err)
	}
}

func run(listen string) error {
	addr, err := driver.ParseAddress(listen)
	if err != nil {
		return err
	}
	terminated, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	room := driver.NewGroup()
	d, err := transport.New(driver.Config{
		MaxPacketSize: 1000,
		LoginTimeout:  10 * time.Second, // to say a name
		OnPacket:      func(c driver.Conn, packet []byte) { hear(room, c, string(packet)) },
	})
	if err != nil {
		return err
	}
	defer d.Close()
	d.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { _ = ev.Conn.Send([]byte("your name?")) },
		Disconnected: func(ev driver.Event) { leave(room, ev) },
	})
	if err := d.Initialize(driver.Bind{Address: addr.Addr().String(), Port: addr.Port()}); err != nil {
		return err
	}
	if err := d.StartListen(0); err != nil {
		return err
	}
	log.Printf("listening on port %d", d.Port())
	<-terminated.Done()
	log.Print("shutting down")
	room.Broadcast([]byte("good night"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return d.Shutdown(ctx) // sends what is queued first
}

// hear takes a player's packet: the first is the name.
func hear(room *driver.Group, c driver.Conn, said string) {
	name, named := c.Value().(string)
	if named {
		say(room, "%s: %s", name, said)
		return
	}
	if len(said) > longestName {
		_ = c.Send([]byte("too long a name"))
		c.Close(errors.New("no name")) // sends what is queued first
		return
	}
	c.SetValue(said)
	c.Authenticated()
	_ = c.Send(fmt.Appendf(nil, "welcome, %s; %d are here", said, room.Len()))
	room.Add(c)
	log.Printf("%s joined", said)
	say(room, "%s joined", said)
}

// leave is told of each connection that ended, which is in no group any more.
func leave(room *driver.Group, ev driver.Event) {
	name, named := ev.Conn.Value().(string)
	if !named {
		log.Printf("somebody left: %v", ev.Reason)
		return
	}
	log.Printf("%s left: %v", name, ev.Reason)
	say(room, "%s left", name)
}

func say(room *driver.Group, format string, args ...any) {
	room.Broadcast(fmt.Appendf(nil, format, args...))
}
