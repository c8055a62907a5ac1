package bench

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// inlineServer is a good server on net and crypto/tls with one goroutine for each connection, which reads packets and answers
// them itself, with one write for those that were read together; and, where packets are broadcast, a second one that writes.
// It leaves out what a driver needs: nobody else can answer, and a peer that does not read stops its goroutine.
type inlineServer struct {
	// Immutable.
	ln   net.Listener
	cfg  *tls.Config // nil: plain
	opts Options
	each bool // a write for each answer, as a handler does that calls Write

	work sync.WaitGroup

	// Atomic: written by the connections.
	established, disconnected atomic.Uint64

	// Guarded by mu.
	mu    sync.RWMutex
	conns map[*inlineConn]struct{}
	gone  bool
}

type inlineConn struct {
	net.Conn
	queue chan []byte   // nil: no broadcasts
	gone  chan struct{} // closed at the end, where there is a queue
}

const (
	// inlineBuffer holds 16 packets of 64 bytes. Larger packets are read into pooled buffers.
	inlineBuffer = 2 << 10
	// inlineQueue is how many packets may wait for a connection.
	inlineQueue = 64
)

// Inline is the server on the standard library that answers inline.
func Inline() Impl { return inline("stdlib-inline", false) }

// inlineEach is Inline with a write for each answer. It differs where packets come together.
func inlineEach() Impl { return inline("stdlib-inline-each", true) }

// TwoGoroutines is Inline with the second goroutine for each connection, whether anything is broadcast or not.
func TwoGoroutines() Impl {
	return Impl{Name: "stdlib-two-goroutines", Start: func(o Options) (*Server, error) {
		o.Broadcasts = true
		return startInline(o, false)
	}}
}

func inline(name string, each bool) Impl {
	return Impl{
		Name:  name,
		Start: func(o Options) (*Server, error) { return startInline(o, each) },
		Only:  func(o Options) bool { return !o.Polled },
	}
}

func startInline(o Options, each bool) (*Server, error) {
	s := &inlineServer{opts: o, each: each, conns: make(map[*inlineConn]struct{})}
	if o.Identity != nil {
		pair, err := tls.X509KeyPair(o.Identity.CertificatePEM, o.Identity.PrivateKeyPEM)
		if err != nil {
			return nil, err
		}
		s.cfg = &tls.Config{ // the driver's
			Certificates:                []tls.Certificate{pair},
			MinVersion:                  tls.VersionTLS12,
			DynamicRecordSizingDisabled: true,
		}
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.ln = ln
	s.work.Go(s.accept)
	return &Server{
		Addr:        ln.Addr().String(),
		Connections: s.connections,
		Events:      func() Events { return Events{s.established.Load(), s.disconnected.Load()} },
		Broadcast:   s.broadcast,
		Group:       s.broadcast,
		Senders:     s.senders,
		Close:       s.close,
	}, nil
}

func (s *inlineServer) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.work.Go(func() { s.serve(nc) })
	}
}

func (s *inlineServer) serve(nc net.Conn) {
	defer nc.Close()
	c := &inlineConn{Conn: nc}
	if s.cfg != nil {
		tc := tls.Server(nc, s.cfg)
		if tc.Handshake() != nil {
			return
		}
		c.Conn = tc
	}
	if s.opts.Broadcasts || s.opts.Group {
		c.queue, c.gone = make(chan []byte, inlineQueue), make(chan struct{})
		s.work.Go(c.write)
		defer close(c.gone)
	}
	if !s.add(c) {
		return
	}
	defer s.remove(c)
	if s.opts.Welcome != nil {
		if _, err := c.Write(frameOf(s.opts.Welcome)); err != nil {
			return
		}
	}
	c.answer(bufio.NewReaderSize(c.Conn, inlineBuffer), !s.each)
}

func (s *inlineServer) add(c *inlineConn) bool {
	s.established.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return !s.gone
}

func (s *inlineServer) remove(c *inlineConn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.disconnected.Add(1)
}

var answers = sync.Pool{New: func() any { return new([]byte) }}

// answer sends every packet back. It holds a buffer for the answers only from the first to the last of those that were read together.
func (c *inlineConn) answer(r *bufio.Reader, batched bool) {
	for {
		if _, err := r.Peek(2); err != nil {
			return
		}
		out := answers.Get().(*[]byte)
		b := (*out)[:0]
		var err error
		for whole := true; err == nil && whole; whole = batched && holdsPacket(r) {
			b, err = readFrame(b, r)
		}
		if err == nil {
			_, err = c.Write(b)
		}
		*out = b
		answers.Put(out)
		if err != nil {
			return
		}
	}
}

// holdsPacket reports whether a whole packet can be read without waiting.
func holdsPacket(r *bufio.Reader) bool {
	if r.Buffered() < 2 {
		return false
	}
	header, _ := r.Peek(2)
	return r.Buffered() >= 2+int(binary.BigEndian.Uint16(header))
}

// readFrame appends the next frame to b.
func readFrame(b []byte, r *bufio.Reader) ([]byte, error) {
	header, err := r.Peek(2)
	if err != nil {
		return b, err
	}
	n := 2 + int(binary.BigEndian.Uint16(header))
	at := len(b)
	b = append(b, make([]byte, n)...)
	_, err = io.ReadFull(r, b[at:])
	return b, err
}

// write writes what is queued, as much as there is at once.
func (c *inlineConn) write() {
	w := bufio.NewWriter(c.Conn)
	for {
		select {
		case frame := <-c.queue:
			_, err := w.Write(frame)
			if len(c.queue) == 0 && err == nil {
				err = w.Flush()
			}
			if err != nil {
				c.Close() // the reader ends
				return
			}
		case <-c.gone:
			return
		}
	}
}

// broadcast queues packet for every connection, but those that are too slow.
func (s *inlineServer) broadcast(packet []byte) (queued int) {
	frame := frameOf(packet)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for c := range s.conns {
		select {
		case c.queue <- frame:
			queued++
		default:
		}
	}
	return queued
}

func (s *inlineServer) senders() (senders []func([]byte) error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for c := range s.conns {
		senders = append(senders, func(packet []byte) error {
			select {
			case c.queue <- frameOf(packet):
				return nil
			case <-c.gone:
				return net.ErrClosed
			}
		})
	}
	return senders
}

func frameOf(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packet)), uint16(len(packet))), packet...)
}

func (s *inlineServer) connections() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.conns)
}

func (s *inlineServer) close() error {
	err := s.ln.Close()
	s.mu.Lock()
	s.gone = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
	return err
}
