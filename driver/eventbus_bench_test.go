package driver_test

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"gridstream/driver"
)

// dispatcher is an EventBus, or what could be in its place.
type dispatcher interface {
	Subscribe(driver.Subscriber) *driver.Subscription
	DispatchEstablished(driver.Event, func(any, []byte))
}

// rwmutexBus holds a lock while it dispatches.
type rwmutexBus struct {
	mu   sync.RWMutex
	subs []driver.Subscriber
}

func (b *rwmutexBus) Subscribe(s driver.Subscriber) *driver.Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = append(b.subs, s)
	return nil
}

func (b *rwmutexBus) DispatchEstablished(ev driver.Event, onPanic func(any, []byte)) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	defer containPanic(onPanic)
	for _, s := range b.subs {
		s.OnConnectionEstablished(ev)
	}
}

// syncmapBus has its subscribers in a sync.Map, in no order.
type syncmapBus struct {
	last atomic.Uint64
	subs sync.Map
}

func (b *syncmapBus) Subscribe(s driver.Subscriber) *driver.Subscription {
	b.subs.Store(b.last.Add(1), s)
	return nil
}

func (b *syncmapBus) DispatchEstablished(ev driver.Event, onPanic func(any, []byte)) {
	defer containPanic(onPanic)
	b.subs.Range(func(_, s any) bool {
		s.(driver.Subscriber).OnConnectionEstablished(ev)
		return true
	})
}

func containPanic(onPanic func(any, []byte)) {
	if v := recover(); v != nil {
		onPanic(v, debug.Stack())
	}
}

// idle is a subscriber that does nothing, with a field so that each is its own.
type idle struct{ _ byte }

func (*idle) OnConnectionEstablished(driver.Event)  {}
func (*idle) OnConnectionDisconnected(driver.Event) {}

func forEachBus(b *testing.B, run func(b *testing.B, bus dispatcher, subscribers int)) {
	for _, subscribers := range []int{1, 16, 256} {
		for _, impl := range []struct {
			name string
			bus  dispatcher
		}{
			{"bus", new(driver.EventBus)},
			{"rwmutex", new(rwmutexBus)},
			{"syncmap", new(syncmapBus)},
		} {
			for range subscribers {
				impl.bus.Subscribe(new(idle))
			}
			b.Run(fmt.Sprintf("subscribers=%d/impl=%s", subscribers, impl.name), func(b *testing.B) {
				b.ReportAllocs()
				run(b, impl.bus, subscribers)
			})
		}
	}
}

// BenchmarkEventDispatch is one event loop that dispatches.
func BenchmarkEventDispatch(b *testing.B) {
	forEachBus(b, func(b *testing.B, bus dispatcher, subscribers int) {
		ev := numbered(1)
		for b.Loop() {
			bus.DispatchEstablished(ev, nil)
		}
		perDelivery(b, subscribers)
	})
}

// BenchmarkEventDispatchParallel is an event loop on each core.
func BenchmarkEventDispatchParallel(b *testing.B) {
	forEachBus(b, func(b *testing.B, bus dispatcher, subscribers int) {
		b.RunParallel(func(pb *testing.PB) {
			ev := numbered(1)
			for pb.Next() {
				bus.DispatchEstablished(ev, nil)
			}
		})
		perDelivery(b, subscribers)
	})
}

func perDelivery(b *testing.B, subscribers int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*subscribers), "ns/delivery")
}
