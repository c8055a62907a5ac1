package driver

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
)

// registry finds connections by their peer's address. Any goroutine; looking up allocates nothing, and takes a lock
// that only those who come and go in the same shard take for writing.
type registry struct {
	seed   uint64
	shards [registryShards]registryShard
}

const registryShards = 128

type registryShard struct {
	mu sync.RWMutex
	v4 map[uint64]*conn // by address and port: a third of the memory of the other
	v6 map[netip.AddrPort]*conn
	_  [64 - 40]byte // a cache line each
}

func newRegistry() *registry { return &registry{seed: rand.Uint64() | 1} }

// key is the form in which addresses are compared: an IPv4 address has one form.
func key(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Is4In6() {
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return a
}

func keyOf4(k netip.AddrPort) uint64 {
	b := k.Addr().As4()
	return uint64(binary.BigEndian.Uint32(b[:]))<<16 | uint64(k.Port())
}

func (r *registry) shard(k netip.AddrPort) *registryShard {
	b := k.Addr().As16()
	h := binary.LittleEndian.Uint64(b[:8])*r.seed ^ binary.LittleEndian.Uint64(b[8:]) ^ uint64(k.Port())
	hi, lo := bits.Mul64(h^r.seed, 0x9e3779b97f4a7c15)
	return &r.shards[(hi^lo)%registryShards]
}

func (s *registryShard) getLocked(k netip.AddrPort) *conn {
	if k.Addr().Is4() {
		return s.v4[keyOf4(k)]
	}
	return s.v6[k]
}

// add enters c, in the place of old, which may be nil. Where the address is somebody else's it does nothing, and returns that.
func (r *registry) add(c, old *conn) (other *conn) {
	k := key(c.RemoteAddr())
	s := r.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if other = s.getLocked(k); other != nil && other != old {
		return other
	}
	if s.v4 == nil {
		s.v4, s.v6 = make(map[uint64]*conn), make(map[netip.AddrPort]*conn)
	}
	if k.Addr().Is4() {
		s.v4[keyOf4(k)] = c
	} else {
		s.v6[k] = c
	}
	return nil
}

// remove takes c out.
func (r *registry) remove(c *conn) {
	k := key(c.RemoteAddr())
	s := r.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.getLocked(k) != c:
	case k.Addr().Is4():
		delete(s.v4, keyOf4(k))
	default:
		delete(s.v6, k)
	}
}

// get is the connection to a; nil where there is none.
func (r *registry) get(a netip.AddrPort) *conn {
	k := key(a)
	s := r.shard(k)
	s.mu.RLock()
	c := s.getLocked(k)
	s.mu.RUnlock()
	return c
}

// each calls f for every connection, with no lock held, until it returns false.
func (r *registry) each(f func(*conn) bool) {
	scratch := connSlices.Get().(*[]*conn)
	defer func() {
		clear((*scratch)[:cap(*scratch)])
		*scratch = (*scratch)[:0]
		connSlices.Put(scratch)
	}()
	for i := range r.shards {
		s := &r.shards[i]
		*scratch = (*scratch)[:0]
		s.mu.RLock()
		for _, c := range s.v4 {
			*scratch = append(*scratch, c)
		}
		for _, c := range s.v6 {
			*scratch = append(*scratch, c)
		}
		s.mu.RUnlock()
		for _, c := range *scratch {
			if !f(c) {
				return
			}
		}
	}
}

// connSlices keeps the slices into which connections are copied to be visited without a lock.
var connSlices = sync.Pool{New: func() any { return new([]*conn) }}
