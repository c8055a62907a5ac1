package driver_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// numbered is an event that is told from others by its number.
func numbered(n uint32) driver.Event {
	ip := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return driver.Event{Address: netip.AddrPortFrom(ip, 1)}
}

func numberOf(ev driver.Event) uint32 {
	ip := ev.Address.Addr().As4()
	return uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
}

// onEstablished subscribes f to Established.
func onEstablished(bus *driver.EventBus, f func(driver.Event)) *driver.Subscription {
	return bus.Subscribe(driver.SubscriberFuncs{Established: f})
}

// journal appends a line for each event that a subscriber of some name gets.
type journal []string

func (j *journal) subscriber(name string) driver.Subscriber {
	return driver.SubscriberFuncs{
		Established: func(ev driver.Event) {
			*j = append(*j, fmt.Sprintf("%s: %d established", name, numberOf(ev)))
		},
		Disconnected: func(ev driver.Event) {
			*j = append(*j, fmt.Sprintf("%s: %d disconnected, %v", name, numberOf(ev), ev.Reason))
		},
	}
}

func TestEventBusZeroValueIsUsable(t *testing.T) {
	var bus driver.EventBus
	bus.DispatchEstablished(numbered(1), nil)
	bus.DispatchDisconnected(numbered(1), nil)
	var got journal
	bus.Subscribe(got.subscriber("a"))
	bus.DispatchEstablished(numbered(2), nil)
	require.Equal(t, journal{"a: 2 established"}, got)
}

func TestEventBusTellsSubscribersInTheOrderInWhichTheySubscribed(t *testing.T) {
	var bus driver.EventBus
	var got journal
	bus.Subscribe(got.subscriber("a"))
	b := bus.Subscribe(got.subscriber("b"))
	bus.Subscribe(got.subscriber("c"))
	end := numbered(1)
	end.Reason = driver.ErrPeerClosed
	bus.DispatchEstablished(numbered(1), nil)
	b.Cancel()
	bus.DispatchDisconnected(end, nil)
	require.Equal(t, journal{
		"a: 1 established",
		"b: 1 established",
		"c: 1 established",
		"a: 1 disconnected, driver: the peer closed the connection",
		"c: 1 disconnected, driver: the peer closed the connection",
	}, got)
}

func TestEventBusTellsWhoSubscribedTwiceTwice(t *testing.T) {
	var bus driver.EventBus
	var got journal
	a := got.subscriber("a")
	first, second := bus.Subscribe(a), bus.Subscribe(a)
	bus.DispatchEstablished(numbered(1), nil)
	first.Cancel()
	bus.DispatchEstablished(numbered(2), nil)
	second.Cancel()
	bus.DispatchEstablished(numbered(3), nil)
	require.Equal(t, journal{"a: 1 established", "a: 1 established", "a: 2 established"}, got)
}

func TestEventBusSubscribeNilPanics(t *testing.T) {
	var bus driver.EventBus
	require.PanicsWithValue(t, "driver: EventBus.Subscribe: nil Subscriber", func() { bus.Subscribe(nil) })
}

func TestSubscriberFuncsMayBeNil(t *testing.T) {
	var bus driver.EventBus
	var got []uint32
	note := func(ev driver.Event) { got = append(got, numberOf(ev)) }
	bus.Subscribe(driver.SubscriberFuncs{})
	bus.Subscribe(driver.SubscriberFuncs{Established: note})
	bus.Subscribe(driver.SubscriberFuncs{Disconnected: note})
	failOnPanic := func(v any, _ []byte) { t.Error(v) }
	bus.DispatchEstablished(numbered(1), failOnPanic)
	bus.DispatchDisconnected(numbered(2), failOnPanic)
	require.Equal(t, []uint32{1, 2}, got)
}

func TestSubscriptionCancelIsIdempotent(t *testing.T) {
	var bus driver.EventBus
	var got journal
	a := bus.Subscribe(got.subscriber("a"))
	bus.Subscribe(got.subscriber("b"))
	a.Cancel()
	a.Cancel()
	bus.DispatchEstablished(numbered(1), nil)
	require.Equal(t, journal{"b: 1 established"}, got)
	new(driver.Subscription).Cancel()
}

func TestSubscriptionCancelFromInsideACallback(t *testing.T) {
	t.Run("its own", func(t *testing.T) {
		var bus driver.EventBus
		var got journal
		var self *driver.Subscription
		calls := 0
		self = onEstablished(&bus, func(driver.Event) { calls++; self.Cancel() })
		bus.Subscribe(got.subscriber("b"))
		bus.DispatchEstablished(numbered(1), nil)
		bus.DispatchEstablished(numbered(2), nil)
		require.Equal(t, 1, calls)
		require.Equal(t, journal{"b: 1 established", "b: 2 established"}, got)
	})
	t.Run("one whose turn comes", func(t *testing.T) {
		var bus driver.EventBus
		var got journal
		var next *driver.Subscription
		onEstablished(&bus, func(driver.Event) { next.Cancel() })
		next = bus.Subscribe(got.subscriber("b"))
		bus.Subscribe(got.subscriber("c"))
		bus.DispatchEstablished(numbered(1), nil)
		require.Equal(t, journal{"c: 1 established"}, got)
	})
	t.Run("one whose turn was", func(t *testing.T) {
		var bus driver.EventBus
		var got journal
		first := bus.Subscribe(got.subscriber("a"))
		onEstablished(&bus, func(driver.Event) { first.Cancel() })
		bus.Subscribe(got.subscriber("c"))
		bus.DispatchEstablished(numbered(1), nil)
		bus.DispatchEstablished(numbered(2), nil)
		require.Equal(t, journal{"a: 1 established", "c: 1 established", "c: 2 established"}, got)
	})
}

func TestEventBusSubscribeFromInsideACallbackSeesOnlyLaterEvents(t *testing.T) {
	var bus driver.EventBus
	var got journal
	var once sync.Once
	onEstablished(&bus, func(driver.Event) {
		once.Do(func() { bus.Subscribe(got.subscriber("late")) })
	})
	bus.DispatchEstablished(numbered(1), nil)
	require.Empty(t, got)
	bus.DispatchEstablished(numbered(2), nil)
	require.Equal(t, journal{"late: 2 established"}, got)
}

func TestEventBusContainsPanics(t *testing.T) {
	var bus driver.EventBus
	var got journal
	explode := func(driver.Event) { panic("boom") }
	exploding := driver.SubscriberFuncs{Established: explode, Disconnected: explode}
	bus.Subscribe(exploding)
	bus.Subscribe(got.subscriber("b"))
	bus.Subscribe(exploding)
	bus.Subscribe(exploding)
	bus.Subscribe(got.subscriber("e"))
	bus.Subscribe(exploding)

	panics := 0
	onPanic := func(v any, stack []byte) {
		panics++
		require.Equal(t, "boom", v)
		require.Contains(t, string(stack), "TestEventBusContainsPanics", "the stack leads to who panicked")
	}
	bus.DispatchEstablished(numbered(1), onPanic)
	require.Equal(t, 4, panics)
	bus.DispatchDisconnected(numbered(1), onPanic)
	require.Equal(t, 8, panics)
	bus.DispatchEstablished(numbered(2), nil)
	require.Equal(t, journal{
		"b: 1 established", "e: 1 established",
		"b: 1 disconnected, <nil>", "e: 1 disconnected, <nil>",
		"b: 2 established", "e: 2 established",
	}, got)
}

func TestEventBusDispatchAllocatesNothing(t *testing.T) {
	for _, subscribers := range []int{1, 16, 256} {
		var bus driver.EventBus
		calls := 0
		for range subscribers {
			onEstablished(&bus, func(driver.Event) { calls++ })
		}
		ev := numbered(1)
		panics := 0 // makes onPanic a closure
		require.Zero(t, testing.AllocsPerRun(100, func() {
			bus.DispatchEstablished(ev, func(any, []byte) { panics++ })
			bus.DispatchDisconnected(ev, func(any, []byte) { panics++ })
		}), "%d subscribers", subscribers)
		require.Equal(t, 101*subscribers, calls)
		require.Zero(t, panics)
	}
}

// garbage is a subscriber with memory of its own: it has a pointer, so that the tiny allocator does not put others beside it.
type garbage struct{ _ *int }

func (*garbage) OnConnectionEstablished(driver.Event)  {}
func (*garbage) OnConnectionDisconnected(driver.Event) {}

// collected runs the garbage collector until gone; it fails the test if that never is.
func collected(t *testing.T, what string, gone func() bool) {
	t.Helper()
	for range 10 {
		runtime.GC()
		if gone() {
			return
		}
	}
	t.Errorf("%s is not freed", what)
}

func TestSubscriptionCancelFreesTheSubscriber(t *testing.T) {
	bus := new(driver.EventBus)
	subscribe := func() (*driver.Subscription, weak.Pointer[garbage]) {
		g := new(garbage)
		return bus.Subscribe(g), weak.Make(g)
	}
	before, _ := subscribe()
	sub, subscriber := subscribe()
	after, _ := subscribe()
	runtime.GC()
	require.NotNil(t, subscriber.Value(), "the bus holds it")

	sub.Cancel()
	collected(t, "the subscriber", func() bool { return subscriber.Value() == nil })
	listed := weak.Make(sub)
	runtime.KeepAlive(sub)
	sub = nil
	collected(t, "the subscription", func() bool { return listed.Value() == nil })

	// A cancelled subscription that somebody keeps does not keep the bus, and with it the driver.
	before.Cancel()
	after.Cancel()
	owner := weak.Make(bus)
	runtime.KeepAlive(bus)
	bus = nil
	collected(t, "the bus", func() bool { return owner.Value() == nil })
	runtime.KeepAlive(before)
	runtime.KeepAlive(after)
}

func TestSubscriptionCancelDuringADispatchFreesTheSubscriber(t *testing.T) {
	bus := new(driver.EventBus)
	var next *driver.Subscription
	var subscriber weak.Pointer[garbage]
	onEstablished(bus, func(driver.Event) {
		next.Cancel()
		collected(t, "the subscriber", func() bool { return subscriber.Value() == nil })
	})
	g := new(garbage)
	next, subscriber = bus.Subscribe(g), weak.Make(g)
	bus.DispatchEstablished(numbered(1), nil)
}

// witness checks what one subscriber gets while dispatchers and other subscribers are at work.
type witness struct {
	// Owned by one dispatcher each.
	first, last []uint32
	broken      []string

	// Bounds; written by who subscribed it.
	notBefore, from, until, notAfter []uint32
}

func newWitness(dispatchers int) *witness {
	return &witness{
		first: make([]uint32, dispatchers), last: make([]uint32, dispatchers), broken: make([]string, dispatchers),
	}
}

func (w *witness) OnConnectionEstablished(ev driver.Event) {
	d, n := ev.Address.Port(), numberOf(ev)
	switch {
	case w.first[d] == 0:
		w.first[d] = n
	case n != w.last[d]+1 && w.broken[d] == "":
		w.broken[d] = fmt.Sprintf("%d after %d", n, w.last[d])
	}
	w.last[d] = n
	if n%4 == 0 {
		runtime.Gosched() // lets the writers in while the dispatch is under way
	}
}

func (w *witness) OnConnectionDisconnected(driver.Event) {}

// TestEventBusUnderConcurrency: dispatchers number their events, and say before and after each dispatch how far they are.
// Whatever was dispatched wholly between Subscribe's return and Cancel's call has to arrive, once and in order; nothing
// may whose dispatch ended before Subscribe was called, or began after Cancel had returned.
func TestEventBusUnderConcurrency(t *testing.T) {
	const dispatchers, churners = 3, 4
	events, stays := uint32(2000), 20
	if testing.Short() {
		events, stays = 500, 5
	}
	var bus driver.EventBus
	var begun, done [dispatchers]atomic.Uint32
	read := func(progress *[dispatchers]atomic.Uint32) []uint32 {
		n := make([]uint32, dispatchers)
		for d := range progress {
			n[d] = progress[d].Load()
		}
		return n
	}
	subscribe := func() (*witness, *driver.Subscription) {
		w := newWitness(dispatchers)
		w.notBefore = read(&done)
		sub := bus.Subscribe(w)
		w.from = read(&begun)
		return w, sub
	}
	cancel := func(w *witness, sub *driver.Subscription) {
		w.until = read(&done)
		sub.Cancel()
		w.notAfter = read(&begun)
	}

	witnesses := make([][]*witness, churners)
	stayed, staying := subscribe()
	var busy, churning sync.WaitGroup
	stop := make(chan struct{})
	for c := range churners {
		churning.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				w, sub := subscribe()
				if i%2 == 0 { // stay for an event at least
					for n := begun[0].Load(); begun[0].Load() <= n && n < events; {
						runtime.Gosched()
					}
				}
				cancel(w, sub)
				if i < stays || i%10 == 0 {
					witnesses[c] = append(witnesses[c], w)
				}
			}
		})
	}
	for d := range dispatchers {
		busy.Go(func() {
			for n := uint32(1); n <= events; n++ {
				ev := numbered(n)
				ev.Address = netip.AddrPortFrom(ev.Address.Addr(), uint16(d))
				begun[d].Store(n)
				bus.DispatchEstablished(ev, func(v any, _ []byte) { t.Error(v) })
				done[d].Store(n)
			}
		})
	}
	busy.Wait()
	close(stop)
	churning.Wait()
	cancel(stayed, staying)
	bus.DispatchEstablished(numbered(events+1), nil)

	received := 0
	for _, w := range append(slices.Concat(witnesses...), stayed) {
		for d := range dispatchers {
			first, last := w.first[d], w.last[d]
			require.Empty(t, w.broken[d])
			if w.until[d] > w.from[d] {
				require.NotZero(t, first, "events %d to %d did not arrive", w.from[d]+1, w.until[d])
				require.LessOrEqual(t, first, w.from[d]+1)
				require.GreaterOrEqual(t, last, w.until[d])
			}
			if first != 0 {
				received++
				require.Greater(t, first, w.notBefore[d])
				require.LessOrEqual(t, last, w.notAfter[d])
			}
		}
	}
	require.NotZero(t, received)
	require.Equal(t, []uint32{events, events, events}, stayed.last)
	require.Equal(t, []uint32{1, 1, 1}, stayed.first)
}

func TestEventBusLosesNoSubscriptionToConcurrentWriters(t *testing.T) {
	const writers, each = 8, 6
	for range 300 { // often enough that two of them meet
		var bus driver.EventBus
		var calls [writers][each]int
		start := make(chan struct{})
		var writing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				<-start
				for i := range each {
					sub := onEstablished(&bus, func(driver.Event) { calls[w][i]++ })
					if i%2 == 1 {
						sub.Cancel()
					}
				}
			})
		}
		close(start)
		writing.Wait()
		bus.DispatchEstablished(numbered(1), nil)
		for w := range writers {
			require.Equal(t, [each]int{1, 0, 1, 0, 1, 0}, calls[w])
		}
	}
}

// busModel is what an EventBus should do, for one goroutine; the callbacks check it as they are called.
type busModel struct {
	t      *testing.T
	bus    driver.EventBus
	script []byte // what is done next, in callbacks and outside; consumed

	subs     []*modelSubscriber // in order; cancelled ones stay
	frames   []*modelDispatch   // those under way, the innermost last
	events   uint32
	panicked bool // a subscriber did, and onPanic has yet to be told
}

type modelSubscriber struct {
	sub       *driver.Subscription
	cancelled bool
}

// modelDispatch is one dispatch under way.
type modelDispatch struct {
	ev          driver.Event
	established bool
	rest        []*modelSubscriber // whose turn has not come
}

// expected is whose turn it is; nil: nobody's.
func (f *modelDispatch) expected() *modelSubscriber {
	for len(f.rest) > 0 {
		s := f.rest[0]
		f.rest = f.rest[1:]
		if !s.cancelled {
			return s
		}
	}
	return nil
}

func (m *busModel) next() byte {
	if len(m.script) == 0 {
		return 0
	}
	op := m.script[0]
	m.script = m.script[1:]
	return op
}

// step does one thing. The script's byte is what, and to whom.
func (m *busModel) step() {
	op := m.next()
	who := int(op >> 3)
	switch op & 7 {
	case 1, 2:
		m.subscribe()
	case 3, 4:
		if len(m.subs) > 0 {
			s := m.subs[who%len(m.subs)]
			s.cancelled = true
			s.sub.Cancel()
		}
	case 5:
		m.dispatch(true)
	case 6:
		m.dispatch(false)
	case 7:
		if len(m.frames) > 0 {
			m.panicked = true
			panic(m.frames[len(m.frames)-1].ev)
		}
	}
}

func (m *busModel) subscribe() {
	s := &modelSubscriber{}
	s.sub = m.bus.Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { m.called(s, ev, true) },
		Disconnected: func(ev driver.Event) { m.called(s, ev, false) },
	})
	m.subs = append(m.subs, s)
}

func (m *busModel) called(s *modelSubscriber, ev driver.Event, established bool) {
	f := m.frames[len(m.frames)-1]
	if f.expected() != s || f.ev != ev || f.established != established || m.panicked {
		m.t.Fatalf("a subscriber is called out of turn with event %d", numberOf(ev))
	}
	m.step()
	m.step()
}

func (m *busModel) dispatch(established bool) {
	const depth, most = 4, 200
	if len(m.frames) == depth || m.events == most {
		return
	}
	m.events++
	f := &modelDispatch{ev: numbered(m.events), established: established, rest: slices.Clone(m.subs)}
	m.frames = append(m.frames, f)
	if established {
		m.bus.DispatchEstablished(f.ev, m.onPanic)
	} else {
		m.bus.DispatchDisconnected(f.ev, m.onPanic)
	}
	if f.expected() != nil || m.panicked {
		m.t.Fatalf("event %d did not reach everybody", m.events)
	}
	m.frames = m.frames[:len(m.frames)-1]
}

func (m *busModel) onPanic(v any, stack []byte) {
	if f := m.frames[len(m.frames)-1]; v != any(f.ev) || len(stack) == 0 || !m.panicked {
		m.t.Fatalf("onPanic was told of %v", v)
	}
	m.panicked = false
}

// FuzzEventBus: whatever is subscribed, cancelled and dispatched, also in callbacks, and whoever panics, the bus does as
// the model.
func FuzzEventBus(f *testing.F) {
	const sub, cancel0, established, disconnected, explode = 1, 3, 5, 6, 7
	const cancel1 = cancel0 | 1<<3
	f.Add([]byte{sub, established, 0, 0, disconnected})
	f.Add([]byte{sub, sub, sub, established, cancel1, 0, 0, 0, established})          // cancels the next
	f.Add([]byte{sub, sub, established, cancel0, 0, 0, 0, established})               // cancels itself
	f.Add([]byte{sub, sub, established, sub, sub, 0, 0, disconnected})                // subscribes in a callback
	f.Add([]byte{sub, sub, sub, established, explode, 0, 0, explode, disconnected})   // panics
	f.Add([]byte{sub, sub, established, disconnected, cancel1, sub, explode, sub, 5}) // a dispatch in a callback
	f.Fuzz(func(t *testing.T, script []byte) {
		m := &busModel{t: t, script: script[:min(len(script), 500)]}
		for len(m.script) > 0 {
			m.step()
		}
		m.dispatch(true)
		for _, s := range m.subs {
			s.cancelled = true
			s.sub.Cancel()
		}
		m.dispatch(false)
	})
}
