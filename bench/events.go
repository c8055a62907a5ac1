package bench

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"gridstream/driver"
)

// subscribers is an EventBus, or what could be in its place.
type subscribers interface {
	subscribe(driver.Subscriber) (cancel func())
	dispatch(driver.Event)
}

// bus is the driver's.
type bus struct{ driver.EventBus }

func (b *bus) subscribe(s driver.Subscriber) func() { return b.Subscribe(s).Cancel }
func (b *bus) dispatch(ev driver.Event)             { b.DispatchEstablished(ev, nil) }

// lockedList holds a lock while it dispatches.
type lockedList struct {
	mu   sync.RWMutex
	list []driver.Subscriber
}

func (l *lockedList) subscribe(s driver.Subscriber) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, s)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.Index(l.list, s)
		l.list = slices.Delete(l.list, i, i+1)
	}
}

func (l *lockedList) dispatch(ev driver.Event) {
	defer func() { _ = recover() }() // as the bus does
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.list {
		s.OnConnectionEstablished(ev)
	}
}

// syncMap keeps no order.
type syncMap struct {
	last atomic.Uint64
	m    sync.Map
}

func (m *syncMap) subscribe(s driver.Subscriber) func() {
	key := m.last.Add(1)
	m.m.Store(key, s)
	return func() { m.m.Delete(key) }
}

func (m *syncMap) dispatch(ev driver.Event) {
	defer func() { _ = recover() }() // as the bus does
	m.m.Range(func(_, s any) bool {
		s.(driver.Subscriber).OnConnectionEstablished(ev)
		return true
	})
}

// counter is a subscriber.
type counter struct{ events uint64 }

func (c *counter) OnConnectionEstablished(driver.Event)  { c.events++ }
func (c *counter) OnConnectionDisconnected(driver.Event) {}

// EventDispatch is one event told to every subscriber: undisturbed, and while another goroutine subscribes and cancels.
func EventDispatch(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		for _, changing := range []bool{false, true} {
			for _, impl := range []struct {
				name string
				new  func() subscribers
			}{
				{"bus", func() subscribers { return new(bus) }},
				{"rwmutex", func() subscribers { return new(lockedList) }},
				{"syncmap", func() subscribers { return new(syncMap) }},
			} {
				b.Run(fmt.Sprintf("subscribers=%d/changing=%s/impl=%s", n, onOff(changing), impl.name), func(b *testing.B) {
					eventDispatch(b, impl.new(), n, changing)
				})
			}
		}
	}
}

func eventDispatch(b *testing.B, list subscribers, n int, changing bool) {
	all := make([]counter, n)
	for i := range all {
		list.subscribe(&all[i])
	}
	var changes atomic.Uint64
	end := func() {}
	if changing {
		end = whileRunning(func() {
			list.subscribe(new(counter))()
			changes.Add(1)
		})
	}
	ev := driver.Event{}
	if !changing {
		b.ReportAllocs()
	}
	for b.Loop() {
		list.dispatch(ev)
	}
	took, changed := b.Elapsed(), changes.Load()
	end()
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N*n), "ns/delivery")
	if changing {
		b.ReportMetric(float64(changed)/took.Seconds(), "changes/s")
	}
	for i := range all {
		if all[i].events != uint64(b.N) {
			b.Fatalf("subscriber %d was told of %d events of %d", i, all[i].events, b.N)
		}
	}
}

// whileRunning has a goroutine call f until it is ended.
func whileRunning(f func()) (end func()) {
	var running atomic.Bool
	running.Store(true)
	var work sync.WaitGroup
	work.Go(func() {
		for running.Load() {
			f()
		}
	})
	return func() {
		running.Store(false)
		work.Wait()
	}
}
