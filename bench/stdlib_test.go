package bench

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// stdlibServer is what one writes on net and crypto/tls: a goroutine for each connection, which reads packets and answers them
// itself; and, where packets are broadcast, a second one that writes. It has the driver's wire format.
type stdlibServer struct {
	// Immutable.
	ln   net.Listener
	cfg  *tls.Config // nil: plain
	opts stdlibOptions

	work sync.WaitGroup

	// Guarded by mu.
	mu    sync.RWMutex
	conns map[*stdlibConn]struct{}
	gone  bool
}

type stdlibOptions struct {
	broadcasts bool
	unbatched  bool // a write for each answer, not for those whose packets were read together
}

type stdlibConn struct {
	net.Conn
	queue chan []byte // nil: no broadcasts
}

const (
	// stdlibBuffer holds 16 packets of 64 bytes. Larger packets are read into pooled buffers.
	stdlibBuffer = 2 << 10
	// stdlibQueue is how many broadcasts may wait for a connection.
	stdlibQueue = 64
)

func newStdlibServer(cfg *tls.Config, opts stdlibOptions) (*stdlibServer, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &stdlibServer{ln: ln, cfg: cfg, opts: opts, conns: make(map[*stdlibConn]struct{})}
	s.work.Go(s.accept)
	return s, nil
}

func (s *stdlibServer) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		c := &stdlibConn{Conn: nc}
		if s.opts.broadcasts {
			c.queue = make(chan []byte, stdlibQueue)
		}
		if !s.add(c) {
			nc.Close()
			return
		}
		s.work.Go(func() { s.serve(c) })
	}
}

func (s *stdlibServer) add(c *stdlibConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return !s.gone
}

func (s *stdlibServer) remove(c *stdlibConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.queue != nil {
		close(c.queue)
	}
}

func (s *stdlibServer) serve(c *stdlibConn) {
	defer s.remove(c)
	nc := c.Conn
	defer func() { nc.Close() }()
	if s.cfg != nil {
		tc := tls.Server(nc, s.cfg)
		if tc.Handshake() != nil {
			return
		}
		nc = tc
	}
	if c.queue != nil {
		s.work.Go(func() { write(nc, c.queue) })
	}
	answer(nc, bufio.NewReaderSize(nc, stdlibBuffer), !s.opts.unbatched)
}

var answers = sync.Pool{New: func() any { return new([]byte) }}

// answer sends every packet back. It holds a buffer for the answers only from the first to the last of those that were read together.
func answer(nc net.Conn, r *bufio.Reader, batched bool) {
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
			_, err = nc.Write(b)
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
func write(nc net.Conn, queue <-chan []byte) {
	w := bufio.NewWriter(nc)
	for frame := range queue {
		_, err := w.Write(frame)
		if len(queue) == 0 && err == nil {
			err = w.Flush()
		}
		if err != nil {
			nc.Close() // the reader ends, and with it the queue
			for range queue {
			}
			return
		}
	}
}

// Broadcast queues packet for every connection, but those that are too slow.
func (s *stdlibServer) Broadcast(packet []byte) (queued int) {
	frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
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

func (s *stdlibServer) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.conns)
}

func (s *stdlibServer) close() {
	s.ln.Close()
	s.mu.Lock()
	s.gone = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}
