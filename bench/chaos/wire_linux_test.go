package chaos_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The wire is a TUN device in a network namespace of the test's own, and somebody who reads every packet that the kernel sends and hands it
// back as that of another host, or does not. Two addresses are the namespace's own, here and there, and for each there is one that only the
// wire has:
//
//	from here to "there, behind the wire"   ──▶   from "here, behind the wire" to there
//
// and back. The sums of the addresses of a packet are the same before and after, so that its checksums stay right.
const (
	here        = "192.0.2.1" // RFC 5737: nobody's
	there       = "192.0.2.2"
	hereBehind  = "192.0.2.3"
	thereBehind = "192.0.2.4"
)

// condition is what a wire does to packets.
type condition struct {
	delay, jitter            time.Duration // packets overtake one another where there is jitter
	loss, reorder, duplicate float64       // shares of the packets; those that are reordered are not delayed
	partitioned              direction
}

// direction is where packets go, or both.
type direction uint8

const (
	toServer direction = 1 << iota
	toClient
	bothWays = toServer | toClient
)

// netem is the condition in the words of tc-netem(8).
func (c condition) netem() []string {
	percent := func(share float64) string { return fmt.Sprintf("%g%%", 100*share) }
	return []string{"netem", "delay", fmt.Sprint(c.delay.Milliseconds(), "ms"), fmt.Sprint(c.jitter.Milliseconds(), "ms"),
		"loss", percent(c.loss), "duplicate", percent(c.duplicate), "reorder", percent(c.reorder)}
}

type wire struct {
	tun  *os.File
	name string
	done chan struct{}

	// Guarded by mu.
	mu         sync.Mutex
	conditions map[uint16]condition // by the server's port
	lost       map[uint16]int       // packets, likewise
	tries      map[segment]int      // how often a partition lost it
	delayed    sync.WaitGroup
}

// segment is what TCP sends again.
type segment struct {
	port     uint16 // the server's
	to       direction
	sequence uint32
}

// layWire needs a network namespace that nobody else uses.
func layWire(t *testing.T) *wire {
	t.Helper()
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	require.NoError(t, err)
	var request [40]byte // struct ifreq
	copy(request[:], "chaos%d")
	binary.NativeEndian.PutUint16(request[16:], syscall.IFF_TUN|syscall.IFF_NO_PI)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request)))
	require.Zero(t, errno)
	w := &wire{
		tun:        os.NewFile(uintptr(fd), "/dev/net/tun"),
		name:       strings.TrimRight(string(request[:16]), "\x00"),
		done:       make(chan struct{}),
		conditions: make(map[uint16]condition),
		lost:       make(map[uint16]int),
		tries:      make(map[segment]int),
	}
	for _, args := range []string{
		"link set lo up",
		"addr add " + here + "/32 dev " + w.name,
		"addr add " + there + "/32 dev " + w.name,
		"link set " + w.name + " mtu 1500 up",
		"route add " + thereBehind + "/32 dev " + w.name + " src " + here,
		"route add " + hereBehind + "/32 dev " + w.name + " src " + there,
	} {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		require.NoError(t, err, "ip %s: %s", args, out)
	}
	go w.carry()
	t.Cleanup(func() {
		w.tun.Close()
		<-w.done
		w.delayed.Wait()
	})
	return w
}

func (w *wire) carry() {
	defer close(w.done)
	for {
		p := make([]byte, 2000)
		n, err := w.tun.Read(p)
		if err != nil {
			return
		}
		if p = p[:n]; n >= 20 && p[0]>>4 == 4 && p[9] == syscall.IPPROTO_TCP {
			w.pass(p)
		}
	}
}

// pass hands a packet of the kernel's back to it.
func (w *wire) pass(p []byte) {
	host := func(i int) *byte { return &p[i] }
	source, destination := host(15), host(19)
	tcp := p[int(p[0]&15)*4:]
	var port uint16
	var to direction
	switch {
	case *source == 1 && *destination == 4: // to there
		*source, *destination, port, to = 3, 2, binary.BigEndian.Uint16(tcp[2:]), toServer
	case *source == 2 && *destination == 3: // back
		*source, *destination, port, to = 4, 1, binary.BigEndian.Uint16(tcp), toClient
	default:
		return
	}
	w.mu.Lock()
	c := w.conditions[port]
	partitioned := c.partitioned&to != 0
	lost := partitioned || rand.Float64() < c.loss
	if lost {
		w.lost[port]++
	}
	if partitioned {
		w.tries[segment{port, to, binary.BigEndian.Uint32(tcp[4:])}]++
	}
	w.mu.Unlock()
	if lost {
		return
	}
	copies := 1
	if rand.Float64() < c.duplicate {
		copies = 2
	}
	for range copies {
		delay := c.delay
		if c.jitter > 0 {
			delay += rand.N(2*c.jitter) - c.jitter
		}
		if delay <= 0 || rand.Float64() < c.reorder {
			_, _ = w.tun.Write(p)
			continue
		}
		w.delayed.Add(1)
		time.AfterFunc(delay, func() {
			defer w.delayed.Done()
			_, _ = w.tun.Write(p)
		})
	}
}

// set is what happens from now on to the packets of the server with that port.
func (w *wire) set(port uint16, c condition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conditions[port] = c
}

// forget drops what is known of a server that is gone: another one may get its port.
func (w *wire) forget(port uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conditions, port)
	delete(w.lost, port)
	maps.DeleteFunc(w.tries, func(s segment, _ int) bool { return s.port == port })
}

// losses is how many packets were lost so far.
func (w *wire) losses(port uint16) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost[port]
}

// triedInVain is how often TCP tried to get the same through a partition, at most.
func (w *wire) triedInVain(port uint16) (most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, n := range w.tries {
		if s.port == port {
			most = max(most, n)
		}
	}
	return most
}

// netem has the kernel do it, to everything on the wire; false, with what it says, where it does not know how.
func (w *wire) netem(t *testing.T, c condition) (ok bool, why string) {
	t.Helper()
	out, err := exec.Command("tc", append(strings.Fields("qdisc replace dev "+w.name+" root"), c.netem()...)...).CombinedOutput()
	if strings.Contains(string(out), "qdisc kind is unknown") {
		return false, "this kernel has no sch_netem"
	}
	require.NoError(t, err, "%s", out)
	return true, ""
}
