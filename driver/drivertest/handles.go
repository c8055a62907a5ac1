package drivertest

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func handleProperties() []property {
	return []property{
		{"OfClosedConnectionsTouchNoOther", staleHandles},
		{"OfHijackedConnectionsTouchNoOther", staleHijacked},
	}
}

// abuse uses the handle of a connection that ended in every way. Any goroutine.
func abuse(s *suite, c driver.Conn) {
	assert.Error(s, c.Send([]byte("a stale handle's")))
	assert.Error(s, c.SendContext(context.Background(), []byte("a stale handle's")))
	c.PauseReading()
	c.Stats()
	c.Authenticated()
	c.ResumeReading()
	if nc, err := c.Hijack(); assert.Error(s, err) {
		assert.Nil(s, nc)
	}
	c.Close(errKicked)
	c.RemoteAddr()
	c.LocalAddr()
	c.TLS()
}

// staleHandles: those who come get the descriptors, and perhaps the addresses, of those who went.
func staleHandles(s *suite) {
	k := newChecker(1)
	l := s.pair(driver.Config{}, driver.Config{})
	l.server.pumping(k.take)
	server, client := s.server(driver.Config{}), s.client(driver.Config{})
	server.pumping(func(p []byte) {
		if string(p) != "a fresh one's" {
			s.Errorf("received %q", p)
		}
	})
	var mu sync.Mutex
	var stale []driver.Conn
	var stop atomic.Bool
	var abusers sync.WaitGroup
	for i := range 3 {
		abusers.Add(1)
		go func() {
			defer abusers.Done()
			for n := i; !stop.Load(); n++ {
				mu.Lock()
				var c driver.Conn
				if len(stale) > 0 {
					c = stale[n%len(stale)]
				}
				mu.Unlock()
				if c != nil {
					abuse(s, c)
				}
				pace(settledSoon)
			}
		}()
	}
	ctx := s.context()
	for n := range s.amount(200) {
		cc, sc := s.connect(client, server)
		require.NoError(s, cc.Send([]byte("a fresh one's")))
		require.NoError(s, sc.Send([]byte("welcome")))
		client.expect("welcome")
		require.NoError(s, l.cc.SendContext(ctx, numbered(nil, 0, n, 100)))
		if n%2 == 0 {
			cc.Close(nil)
		} else {
			sc.Close(nil)
		}
		require.NotErrorIs(s, client.awaitEnd(cc), errKicked)
		require.NotErrorIs(s, server.awaitEnd(sc), errKicked)
		mu.Lock()
		stale = append(stale, cc, sc)
		mu.Unlock()
	}
	stop.Store(true)
	s.must("the abusers", abusers.Wait)
	k.complete(s, "a bystander", []int{s.amount(200)})
}

// staleHijacked: a hijacked connection's net.Conn is its new owner's alone.
func staleHijacked(s *suite) {
	for range s.amount(30) {
		l := s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
		a, b := s.hijack(l.cc), s.hijack(l.sc)
		wait := s.background("stale handles", func() {
			for range 5 {
				abuse(s, l.cc)
				abuse(s, l.sc)
			}
		})
		for n := range 50 {
			_, err := a.Write(frame(numbered(nil, 0, n, 100)))
			require.NoError(s, err)
		}
		s.expectFrames(b, 0, 0, 50)
		wait()
		require.NoError(s, a.Close())
		require.NoError(s, b.Close())
		require.NoError(s, l.client.Close())
		require.NoError(s, l.server.Close())
	}
}
