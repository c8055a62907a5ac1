//go:build unix

package stdnet_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// Connections that move: driver -> net.Conn -> driver -> …, while a raw peer sends and receives numbered packets all the time, and
// the one who has the connection does too. None may be lost, duplicated or out of order, on either side.

const (
	moves    = 200
	patience = time.Minute // bounds a test; nothing passes by waiting for it
	perStop  = 10          // packets each way, at least, before a connection moves on
	window   = 500         // packets on their way in one direction, at most
)

// station is a driver that connections pass through.
type station struct {
	driver.Driver

	movers sync.Map // netip.AddrPort of the peer -> *mover

	// receiving is held while packets are taken from Receive: who has it knows that none is on its way to its mover.
	receiving sync.Mutex
}

// newStation has packets come to OnPacket, or polled with Receive.
func newStation(t *testing.T, newDriver func(driver.Config) (driver.Driver, error), polled bool) *station {
	s := &station{}
	// Small buffers: connections also move while reading is paused and sending waits.
	cfg := driver.Config{EventLoops: 2, MaxPacketSize: 200, InboundBufferSize: 2000, OutboundBufferSize: 4000}
	if !polled {
		cfg.OnPacket = func(c driver.Conn, packet []byte) { s.mover(c.RemoteAddr()).got.take(packet) }
	}
	d, err := newDriver(cfg)
	require.NoError(t, err)
	s.Driver = d
	d.Events().Subscribe(driver.SubscriberFuncs{
		Established: func(ev driver.Event) { close(s.mover(ev.Address).established) },
		Disconnected: func(ev driver.Event) {
			if !errors.Is(ev.Reason, driver.ErrHijacked) {
				s.mover(ev.Address).got.fail(fmt.Errorf("disconnected: %w", ev.Reason))
			}
		},
	})
	require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	var pump sync.WaitGroup
	if polled {
		pump.Go(s.receive)
	}
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		pump.Wait()
		st := d.Stats()
		require.Equal(t, st.Accepted, st.Disconnected)
	})
	return s
}

func (s *station) mover(peer netip.AddrPort) *mover {
	m, _ := s.movers.Load(peer)
	return m.(*mover)
}

func (s *station) receive() {
	buf := make([]byte, s.MaxSendSize())
	for s.WaitForData(context.Background()) == nil {
		s.receiving.Lock()
		for n, from, _ := s.Receive(buf); n > 0; n, from, _ = s.Receive(buf) {
			s.mover(from).got.take(buf[:n])
		}
		s.receiving.Unlock()
	}
}

// mover is this side of a connection that moves.
type mover struct {
	ctx         context.Context
	nc          net.Conn // where it is no driver's
	peer        *peer
	got         *tally
	established chan struct{} // at the station where it is

	// Owned by who has the connection.
	sent int
}

// stop has s adopt the connection, exchanges packets there, and hijacks it in the midst of them.
func (m *mover) stop(s *station) error {
	m.established = make(chan struct{})
	s.movers.Store(m.nc.RemoteAddr().(*net.TCPAddr).AddrPort(), m)
	c, err := s.Adopt(m.nc)
	if err != nil {
		return err
	}
	select {
	case <-m.established: // with TLS later
	case <-m.ctx.Done():
		return fmt.Errorf("not established: %w", m.ctx.Err())
	}
	enough := make(chan struct{})
	sending := make(chan error, 1)
	go func() { sending <- m.send(c, m.sent+perStop, enough) }()
	before := m.got.count()
	select {
	case <-enough:
	case err := <-sending:
		return fmt.Errorf("sending: %w", err)
	}
	if err := m.got.await(m.ctx, before+perStop); err != nil {
		return fmt.Errorf("receiving: %w", err)
	}
	if m.nc, err = c.Hijack(); err != nil {
		return err
	}
	s.receiving.Lock()
	defer s.receiving.Unlock()
	if err := <-sending; !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("sending, after Hijack: %w", err)
	}
	return m.nc.SetDeadline(time.Now().Add(patience))
}

// send sends until it cannot, and closes enough when it has sent the packet enoughAt.
func (m *mover) send(c driver.Conn, enoughAt int, enough chan<- struct{}) error {
	var packet []byte
	for {
		packet = appendNumbered(packet[:0], m.sent)
		if err := c.SendContext(m.ctx, packet); err != nil {
			return err
		}
		if m.sent++; m.sent == enoughAt {
			close(enough)
		}
		if err := m.peer.got.await(m.ctx, m.sent-window); err != nil {
			return fmt.Errorf("the peer: %w", err)
		}
	}
}

// walk exchanges count packets as any code does that has a net.Conn; readAhead: with a buffer of its own, which goes with the connection.
func (m *mover) walk(count int, readAhead bool) error {
	var r io.Reader = m.nc
	if readAhead {
		br := bufio.NewReader(m.nc)
		r = br
		defer func() { m.nc = driver.WithUnread(m.nc, br) }()
	}
	for range count {
		packet, err := readFrame(r)
		if err != nil {
			return err
		}
		m.got.take(packet)
		if _, err := m.nc.Write(frame(appendNumbered(nil, m.sent))); err != nil {
			return err
		}
		m.sent++
	}
	return nil
}

// finish ends the connection from both sides, and looks that everything came that was sent.
func (m *mover) finish() error {
	defer m.nc.Close()
	close(m.peer.stop)
	if err := m.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	for {
		packet, err := readFrame(m.nc)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading to the end: %w", err)
		}
		m.got.take(packet)
	}
	sent, err := m.peer.finish()
	if err != nil {
		return fmt.Errorf("the peer: %w", err)
	}
	return errors.Join(m.got.complete("came", sent), m.peer.got.complete("came back", m.sent))
}

// connect makes a connection whose peer sends and receives from now on; with secure that begins with a handshake.
func connect(ctx context.Context, ln net.Listener, secure bool) (*mover, error) {
	var nc net.Conn
	nc, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		return nil, err
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	accepted, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	if secure {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	p := &peer{nc: nc, got: newTally(), stop: make(chan struct{})}
	m := &mover{ctx: ctx, nc: accepted, peer: p, got: newTally()}
	p.begin(ctx, m.got)
	return m, nil
}

// travel moves m from station to station, beginning at the one with that index, and ends it.
func (m *mover) travel(stations []*station, first, stops int) error {
	for i := range stops {
		if err := m.stop(stations[(first+i)%len(stations)]); err != nil {
			return fmt.Errorf("stop %d: %w", i, err)
		}
		if err := m.walk(3, i%2 == 0); err != nil {
			return fmt.Errorf("behind stop %d: %w", i, err)
		}
	}
	return m.finish()
}

// listening is a listener on the loopback. Leaks of what the test makes with it fail the test.
func listening(t *testing.T) (context.Context, net.Listener) {
	warmUp(t)
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
	t.Cleanup(func() { // the last one, since it is registered first
		if t.Failed() {
			return // what is left then says nothing
		}
		require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 }, patience, time.Millisecond, // and Eventually's
			"%d goroutines before, %d after", goroutines, runtime.NumGoroutine())
		require.Eventually(t, func() bool { return countDescriptors() <= descriptors }, patience, time.Millisecond,
			"%d descriptors before, %d after", descriptors, countDescriptors())
	})
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx, ln
}

// warmUp has the process open what it opens once, the runtime's poller.
func warmUp(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
}

// countDescriptors is 0 where the system does not tell.
func countDescriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

func newOnLoops(cfg driver.Config) (driver.Driver, error) { return driver.New(cfg) }

func newSecureOnLoops(cfg driver.Config) (driver.Driver, error) {
	d, err := driver.NewSecure(cfg)
	if err != nil {
		return nil, err
	}
	return drivertest.Secured(d), nil
}

func onLoops(t *testing.T) []*station {
	return []*station{newStation(t, newOnLoops, false), newStation(t, newOnLoops, true)}
}

func onGoroutines(t *testing.T) []*station {
	return []*station{newStation(t, newPlain, false), newStation(t, newPlain, true)}
}

func both(t *testing.T) []*station {
	loops, goroutines := onLoops(t), onGoroutines(t)
	return []*station{loops[0], goroutines[0], loops[1], goroutines[1]}
}

func TestConnectionMovesBetweenWorlds(t *testing.T) {
	for _, test := range []struct {
		name     string
		stations func(*testing.T) []*station
	}{{"Loops", onLoops}, {"Stdnet", onGoroutines}, {"Both", both}} {
		t.Run(test.name, func(t *testing.T) {
			ctx, ln := listening(t)
			stations := test.stations(t)
			m, err := connect(ctx, ln, false)
			require.NoError(t, err)
			require.NoError(t, m.travel(stations, 0, moves))
		})
	}
}

func TestManyConnectionsMoveAtOnce(t *testing.T) {
	ctx, ln := listening(t)
	stations := both(t)
	const connections = 20
	travelled := make(chan error, connections)
	for i := range connections {
		m, err := connect(ctx, ln, false)
		require.NoError(t, err)
		go func() { travelled <- m.travel(stations, i, moves/connections) }()
	}
	for range connections {
		require.NoError(t, <-travelled)
	}
}

// TestHijackedSessionsGoOn: a TLS session cannot be adopted again, so that there is one stop, and many connections.
func TestHijackedSessionsGoOn(t *testing.T) {
	for _, test := range []struct {
		name      string
		newDriver func(driver.Config) (driver.Driver, error)
	}{{"Loops", newSecureOnLoops}, {"Stdnet", newSecure}} {
		t.Run(test.name, func(t *testing.T) {
			ctx, ln := listening(t)
			stations := []*station{newStation(t, test.newDriver, false), newStation(t, test.newDriver, true)}
			const atOnce = 4
			var travelling sync.WaitGroup
			var connecting sync.Mutex // so that each gets the connection that it dialled
			travelled := make(chan error, moves)
			for n := range atOnce {
				travelling.Go(func() {
					for i := n; i < moves; i += atOnce {
						connecting.Lock()
						m, err := connect(ctx, ln, true)
						connecting.Unlock()
						if err == nil {
							err = m.goOn(stations[i/atOnce%2])
						}
						travelled <- err
					}
				})
			}
			for range moves {
				require.NoError(t, <-travelled)
			}
			travelling.Wait()
		})
	}
}

func (m *mover) goOn(s *station) error {
	if err := m.stop(s); err != nil {
		return err
	}
	if _, isTLS := m.nc.(interface {
		ConnectionState() tls.ConnectionState
	}); !isTLS {
		return fmt.Errorf("Hijack gave a %T", m.nc)
	}
	for _, readAhead := range []bool{false, true} {
		if err := m.walk(perStop, readAhead); err != nil {
			return err
		}
	}
	return m.finish()
}
