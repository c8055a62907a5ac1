//go:build unix

package driver_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gridstream/driver"
)

// upgrade is the handler of an http.Server whose clients go on with packets.
func upgrade(d driver.Driver) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "mygame/1" {
			http.Error(w, "this is for players", http.StatusUpgradeRequired)
			return
		}
		nc, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: mygame/1\r\n\r\n")
		if err := rw.Flush(); err != nil {
			nc.Close()
			return
		}
		// The client may have sent packets already, and the http.Server may have read them.
		if _, err := d.Adopt(driver.WithUnread(nc, rw.Reader)); err != nil {
			log.Print(err) // the connection is closed
		}
	}
}

// An HTTP upgrade, and then packets. The client sends its first packet right behind the request.
func ExampleDriver_Adopt() {
	d, err := driver.New(driver.Config{OnPacket: func(c driver.Conn, packet []byte) { _ = c.Send(packet) }})
	if err != nil {
		log.Panic(err)
	}
	defer d.Close()
	if err := d.Initialize(driver.Bind{Address: "127.0.0.1"}); err != nil {
		log.Panic(err)
	}
	web := httptest.NewServer(upgrade(d))
	defer web.Close()

	nc, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	fmt.Fprint(nc, "GET /play HTTP/1.1\r\nHost: game.example.com\r\nConnection: Upgrade\r\nUpgrade: mygame/1\r\n\r\n\x00\x05hello")
	br := bufio.NewReader(nc)
	response, err := http.ReadResponse(br, nil)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(response.Status)
	fmt.Println(hear(br))
	// Output:
	// 101 Switching Protocols
	// hello
}

// hear reads a packet, as a client that has no driver.
func hear(r io.Reader) string {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		log.Panic(err)
	}
	packet := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(r, packet); err != nil {
		log.Panic(err)
	}
	return string(packet)
}

// reusePort listens on a port that several processes share, and the system spreads connections over them.
func reusePort(addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		controlErr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(controlErr, err)
	}}
	return lc.Listen(context.Background(), "tcp4", addr)
}

// A listener with options of one's own: two drivers, e.g. an old process and its successor, listen on the same port.
func ExampleDriver_StartListenOn() {
	addr := "127.0.0.1:0"
	for range 2 {
		d, err := driver.New(driver.Config{OnPacket: func(c driver.Conn, packet []byte) { _ = c.Send(packet) }})
		if err != nil {
			log.Panic(err)
		}
		defer d.Close()
		ln, err := reusePort(addr)
		if err != nil {
			log.Panic(err)
		}
		addr = ln.Addr().String()
		if err := errors.Join(d.Initialize(driver.Bind{Address: "127.0.0.1"}), d.StartListenOn(ln)); err != nil {
			log.Panic(err)
		}
		fmt.Println("on the port of the listener:", strings.HasSuffix(addr, fmt.Sprint(":", d.Port())))
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	fmt.Fprint(nc, "\x00\x05hello")
	fmt.Println(hear(nc))
	// Output:
	// on the port of the listener: true
	// on the port of the listener: true
	// hello
}

// activated is the listener that systemd passed to the process, of a socket unit with one socket: sd_listen_fds(3).
func activated() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, errors.New("not started by a socket unit with one socket")
	}
	f := os.NewFile(3, "LISTEN_FD_3")
	defer f.Close() // the listener has a descriptor of its own
	return net.FileListener(f)
}

// Socket activation: systemd listens, and starts the server with the listener. Players that connect while it restarts wait.
func ExampleDriver_StartListenOn_systemd() {
	d, err := driver.New(driver.Config{OnPacket: func(c driver.Conn, packet []byte) { _ = c.Send(packet) }})
	if err != nil {
		log.Panic(err)
	}
	ln, err := activated()
	if err != nil {
		log.Panic(err)
	}
	if err := errors.Join(d.Initialize(driver.Bind{}), d.StartListenOn(ln)); err != nil {
		log.Panic(err)
	}
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-terminated.Done()
	_ = d.Shutdown(context.Background())
}

// leave takes a connection out of the driver: from here on it is code on package net that serves it.
func leave(c driver.Conn) {
	nc, err := c.Hijack() // waits for the event loop: not in a callback
	if err != nil {
		log.Print(err) // it ended meanwhile
		return
	}
	defer nc.Close()
	fmt.Fprintln(nc, "lines, please")
	lines := bufio.NewScanner(nc)
	for lines.Scan() {
		fmt.Fprintln(nc, strings.ToUpper(lines.Text()))
	}
}

// A connection leaves the driver and goes on as an ordinary net.Conn.
func ExampleConn_Hijack() {
	d, err := driver.New(driver.Config{OnPacket: func(c driver.Conn, packet []byte) {
		if string(packet) == "console" {
			go leave(c)
		}
	}})
	if err != nil {
		log.Panic(err)
	}
	defer d.Close()
	if err := errors.Join(d.Initialize(driver.Bind{Address: "127.0.0.1"}), d.StartListen(0)); err != nil {
		log.Panic(err)
	}

	nc, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", d.Port()))
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	fmt.Fprint(nc, "\x00\x07console")
	answers := bufio.NewScanner(nc)
	for _, say := range []string{"who is there?", "bye"} {
		answers.Scan()
		fmt.Println(answers.Text())
		fmt.Fprintln(nc, say)
	}
	answers.Scan()
	fmt.Println(answers.Text())
	// Output:
	// lines, please
	// WHO IS THERE?
	// BYE
}
