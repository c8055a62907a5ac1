package driver

import (
	"net/netip"
	"sync"
	"time"

	"gridstream/loop/link"
)

// limiter is what one connection may receive. Owned by its loop.
type limiter struct {
	packets, bytes bucket
	received       uint64 // bytes counted, where the link tells

	// Guarded by mu. Any goroutine. mailbox.mu -> mu -> the link's.
	mu     sync.Mutex
	since  time.Time     // reading is paused; zero: it is not
	unread time.Duration // paused since credit was last taken
	ended  time.Time     // the last of that
}

// pause pauses reading from the link.
func (l *limiter) pause(of link.Link, p link.Pause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of.Pause(p)
	if l.since.IsZero() && of.Paused() {
		l.since = time.Now()
		l.expireLocked(l.since)
	}
}

// resume goes on with it, unless it is paused for another reason. What is read then waits for mu, and for its credit.
func (l *limiter) resume(of link.Link, p link.Pause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of.Resume(p)
	if !l.since.IsZero() && !of.Paused() {
		l.ended = time.Now()
		l.unread += l.ended.Sub(l.since)
		l.since = time.Time{}
	}
}

// credit lets so much more come as a peer that keeps to its rate has sent while nothing was read.
func (l *limiter) credit() {
	l.mu.Lock()
	if l.unread > 0 {
		l.expireLocked(time.Now())
	}
	unread := l.unread
	l.unread = 0
	l.mu.Unlock()
	if unread > 0 {
		l.packets.credit(unread)
		l.bytes.credit(unread)
	}
}

// hasCome is the time after which what waited while nothing was read has come, if it ever was there.
const hasCome = time.Second

// expireLocked forgets pauses that ended so long ago.
func (l *limiter) expireLocked(now time.Time) {
	if now.Sub(l.ended) >= hasCome {
		l.unread = 0
	}
}

func newLimiter(cfg *Config) *limiter {
	if cfg.PacketsPerSecond == 0 && cfg.BytesPerSecond == 0 {
		return nil
	}
	now := time.Now()
	return &limiter{packets: newBucket(cfg.PacketsPerSecond, now), bytes: newBucket(cfg.BytesPerSecond, now)}
}

// bucket is a token bucket that holds one second's worth.
type bucket struct {
	rate   float64 // per second; 0: no limit
	tokens float64
	extra  float64   // beyond one second's worth: for what came while nothing was read
	filled time.Time // up to then tokens are there
}

func newBucket(rate int, now time.Time) bucket {
	return bucket{rate: float64(rate), tokens: float64(rate), filled: now}
}

// fill adds the tokens for the time since that was last done, but for the part of it in which nothing was read.
func (b *bucket) fill(unread time.Duration) {
	now := time.Now()
	read := max(now.Sub(b.filled)-unread, 0)
	b.filled = now
	b.tokens = min(b.rate, b.tokens+read.Seconds()*b.rate)
	if read >= hasCome { // and nothing came
		b.extra = 0
	}
}

// take takes n tokens; false when there are not so many.
func (b *bucket) take(n int) bool {
	if b.rate == 0 {
		return true
	}
	b.fill(0)
	if b.tokens+b.extra < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	if b.tokens < 0 {
		b.extra += b.tokens
		b.tokens = 0
	}
	return true
}

// credit is for the time d, in which nothing was read.
func (b *bucket) credit(d time.Duration) {
	b.fill(d)
	b.extra += d.Seconds() * b.rate
}

// perIP counts the accepted connections of each peer: an IPv4 address, or an IPv6 /64. Any goroutine.
type perIP struct {
	// Immutable.
	max int // 0: no limit

	// Guarded by mu, a leaf.
	mu    sync.Mutex
	count map[netip.Addr]int
}

// acquire counts one more of a; false when it has as many as it may.
func (p *perIP) acquire(a netip.Addr) bool {
	a = network(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[a] >= p.max {
		return false
	}
	if p.count == nil {
		p.count = make(map[netip.Addr]int)
	}
	p.count[a]++
	return true
}

func (p *perIP) release(a netip.Addr) {
	a = network(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[a]--; p.count[a] <= 0 {
		delete(p.count, a)
	}
}

// network is what one peer is taken to have.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is4() {
		return a
	}
	prefix, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return prefix.Addr()
}
