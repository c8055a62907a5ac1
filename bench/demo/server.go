package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gridstream/driver"
)

const (
	moveRate       = 10 // Hz
	stateRate      = 20 // Hz
	playersPerZone = 50

	statePeriod = time.Second / stateRate
	movePeriod  = time.Second / moveRate
)

var (
	errNotLoopback = errors.New("demo: not from this host")
	errBadPacket   = errors.New("demo: bad packet")
)

// server is the game: players log in, move, and get the state of their zone.
type server struct {
	// Immutable.
	drv   driver.Driver
	zones []*zone

	// Atomic: written by event loops and, states alone, by the goroutine that ticks.
	established, disconnected atomic.Uint64 // events
	moves                     atomic.Uint64 // applied
	misordered                atomic.Uint64 // moves that were not the next one
	states                    atomic.Uint64 // zone states sent, counted per player

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// newDriver makes a driver and binds it; a secure one if desc is not nil.
func newDriver(cfg driver.Config, bind driver.Bind, desc *driver.SecureDesc) (driver.Driver, error) {
	if desc != nil {
		return newSecureDriver(cfg, bind, *desc)
	}
	d, err := driver.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.Initialize(bind); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// startServer listens on bind for that many players.
func startServer(bind driver.Bind, desc *driver.SecureDesc, players int) (*server, error) {
	s := &server{}
	for n := range (players + playersPerZone - 1) / playersPerZone {
		s.zones = append(s.zones, newZone(n))
	}
	var err error
	s.drv, err = newDriver(driver.Config{
		MaxConnections: players,
		OnPacket:       s.onPacket,
		LoginTimeout:   10 * time.Second,
	}, bind, desc)
	if err != nil {
		return nil, err
	}
	s.drv.Events().Subscribe(driver.SubscriberFuncs{Established: s.onEstablished, Disconnected: s.onDisconnected})
	if err := s.drv.StartListen(0); err != nil {
		_ = s.drv.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.done.Go(func() { pace(ctx, statePeriod, s.tick) })
	return s, nil
}

// shutdown ends the game and disconnects who is left.
func (s *server) shutdown(ctx context.Context) error {
	s.cancel()
	s.done.Wait()
	return s.drv.Shutdown(ctx)
}

// tick broadcasts the zones that are due in a slice of the period.
func (s *server) tick(n int) {
	for ; n < len(s.zones); n += int(statePeriod / slice) {
		s.states.Add(uint64(s.zones[n].broadcast()))
	}
}

func (s *server) onEstablished(ev driver.Event) {
	s.established.Add(1)
	if !ev.Address.Addr().IsLoopback() {
		ev.Conn.Close(errNotLoopback)
	}
}

func (s *server) onDisconnected(ev driver.Event) {
	s.disconnected.Add(1)
	if seat, ok := ev.Conn.Value().(*seat); ok {
		seat.zone.drop(seat)
	}
}

// onPacket runs on the connection's event loop.
func (s *server) onPacket(c driver.Conn, packet []byte) {
	seat, loggedIn := c.Value().(*seat)
	switch kind, body := packet[0], packet[1:]; {
	case kind == kindLogin && len(body) == 4 && !loggedIn:
		s.login(c, binary.BigEndian.Uint32(body))
	case kind == kindMove && (len(packet) == moveSize || len(packet) == stampedMoveSize) && loggedIn:
		s.move(seat, readPosition(body))
		if stamp := packet[moveSize:]; len(stamp) > 0 {
			var pong [pongSize]byte
			pong[0] = kindPong
			copy(pong[1:], stamp)
			_ = c.Send(pong[:]) // a player that does not read has no use for it
		}
	case kind == kindLogout && loggedIn:
		seat.zone.leave(seat)
	default:
		c.Close(errBadPacket)
	}
}

func (s *server) login(c driver.Conn, player uint32) {
	zone := s.zones[int(player)/playersPerZone%len(s.zones)]
	seat := &seat{player: player, conn: c, zone: zone}
	c.SetValue(seat)
	c.Authenticated()
	if err := c.Send(welcome(zone.number)); err != nil {
		c.Close(err)
		return
	}
	zone.join(seat)
}

func (s *server) move(seat *seat, p position) {
	if n := seat.moves.Add(1); n != p.seq {
		s.misordered.Add(1)
	}
	seat.put(p)
	s.moves.Add(1)
}

// playerAddress is address number n, from 0, of this host.
func playerAddress(n int, port uint16) netip.AddrPort {
	n++
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(n >> 16), byte(n >> 8), byte(n)}), port)
}

// playerNumber is playerAddress undone.
func playerNumber(addr netip.AddrPort) int {
	b := addr.Addr().As4()
	return int(b[1])<<16 + int(b[2])<<8 + int(b[3]) - 1
}

// maxPlayers is how many addresses 127.0.0.0/8 has, but for the last one, which is its broadcast address.
const maxPlayers = 1<<24 - 2
