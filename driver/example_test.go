package driver_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"gridstream/driver"
)

// A server whose players hear what any of them says. It runs until Ctrl-C.
func Example_server() {
	terminated, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	zone := driver.NewGroup()
	d, err := driver.New(driver.Config{
		OnPacket: func(c driver.Conn, packet []byte) { zone.Broadcast(packet) }, // on c's event loop
	})
	if err != nil {
		log.Fatal(err)
	}
	d.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { zone.Add(ev.Conn) },
		Disconnected: func(ev driver.Event) { log.Println(ev.Address, "left:", ev.Reason) },
	})
	if err := d.Initialize(driver.Bind{Address: "127.0.0.1", Port: 7777}); err != nil {
		log.Fatal(err)
	}
	if err := d.StartListen(0); err != nil {
		log.Fatal(err)
	}
	<-terminated.Done()
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = d.Shutdown(grace) // sends what is queued first
}

// A client that says something to the server's players and hears it itself.
func Example_client() {
	d, err := driver.New(driver.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { _ = ev.Conn.Send([]byte("hello, zone")) },
		Disconnected: func(ev driver.Event) { log.Println("disconnected:", ev.Reason); cancel() },
	})
	if err := d.Initialize(driver.Bind{}); err != nil {
		log.Fatal(err)
	}
	if err := d.ConnectTo(netip.MustParseAddrPort("127.0.0.1:7777")); err != nil {
		log.Fatal(err)
	}

	if err := d.WaitForData(ctx); err != nil {
		log.Print(err)
		return
	}
	packet := make([]byte, d.MaxSendSize())
	n, from, err := d.Receive(packet)
	fmt.Printf("%q from %v, error: %v\n", packet[:n], from, err)
}

// A game loop that polls, as with GridMate: events and packets arrive where the loop asks for them.
func Example_gameLoop() {
	server, err := driver.New(driver.Config{Dispatch: driver.DispatchOnUpdate})
	if err != nil {
		log.Fatal(err)
	}
	player, err := driver.New(driver.Config{Dispatch: driver.DispatchOnUpdate})
	if err != nil {
		log.Fatal(err)
	}
	player.Events().Subscribe(driver.SubscriberFuncs{
		Established: func(ev driver.Event) { _ = ev.Conn.Send([]byte("move")) }, // in Update
	})
	loopback := driver.Bind{Address: "127.0.0.1"} // and a port of the system's choice
	if err := errors.Join(server.Initialize(loopback), server.StartListen(0), player.Initialize(loopback)); err != nil {
		log.Fatal(err)
	}
	if err := player.ConnectTo(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.Port())); err != nil {
		log.Fatal(err)
	}

	packet := make([]byte, server.MaxSendSize())
	for done := false; !done; time.Sleep(5 * time.Millisecond) { // the frame
		server.Update()
		for n, from, _ := server.Receive(packet); n > 0; n, from, _ = server.Receive(packet) {
			fmt.Printf("server: %s\n", packet[:n])
			_ = server.Send(from, []byte("state"))
		}
		player.Update()
		for n, _, _ := player.Receive(packet); n > 0; n, _, _ = player.Receive(packet) {
			fmt.Printf("player: %s\n", packet[:n])
			done = true
		}
	}
	_ = player.Close()
	_ = server.Close()
	// Output:
	// server: move
	// player: state
}
