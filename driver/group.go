package driver

import (
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/valyala/bytebufferpool"
)

// Group is a set of connections that get the same packets: a zone, a guild, an area of interest. Members leave by
// themselves when they disconnect. Its methods may be called from any goroutine, also from callbacks, and do not
// block. The zero value is an empty group.
type Group struct {
	// Guarded by mu. Group.mu -> conn.mu: who is in which group changes on both sides at once.
	mu      sync.RWMutex
	members []Conn // in no order
	index   map[Conn]int
}

// NewGroup makes an empty group.
func NewGroup() *Group { return &Group{} }

// Add makes c a member; false if it is one already, or is closed.
func (g *Group) Add(c Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, member := g.index[c]; member {
		return false
	}
	if own, ok := c.(*conn); ok && !own.join(g) {
		return false
	}
	if g.index == nil {
		g.index = make(map[Conn]int)
	}
	g.index[c] = len(g.members)
	g.members = append(g.members, c)
	return true
}

// Remove takes c out; false if it was no member.
func (g *Group) Remove(c Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, member := g.index[c]
	if !member {
		return false
	}
	last := len(g.members) - 1
	g.members[i] = g.members[last]
	g.index[g.members[i]] = i
	g.members[last] = nil
	g.members = g.members[:last]
	delete(g.index, c)
	if own, ok := c.(*conn); ok {
		own.leave(g)
	}
	return true
}

// Len is the number of members.
func (g *Group) Len() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.members)
}

// Broadcast queues packet for every member, and returns for how many. It encodes once (where members of several drivers are
// mixed, once for each run of them), and wakes each event loop, where there are any, once.
func (g *Group) Broadcast(packet []byte) int {
	scratch := groupSlices.Get().(*[]Conn)
	defer func() {
		clear(*scratch)
		*scratch = (*scratch)[:0]
		groupSlices.Put(scratch)
	}()
	g.mu.RLock()
	*scratch = append(*scratch, g.members...)
	g.mu.RUnlock()

	sent := 0
	for members := *scratch; len(members) > 0; {
		own, ok := members[0].(*conn)
		if !ok {
			if err := members[0].Send(packet); err == nil {
				sent++
			} else if errors.Is(err, net.ErrClosed) {
				g.Remove(members[0])
			}
			members = members[1:]
			continue
		}
		n, visited := own.core.broadcastTo(members, packet)
		sent += n
		members = members[visited:]
	}
	return sent
}

// broadcastTo queues packet for those at the beginning of members that are of this driver, encoded once. It returns for how many,
// and how many those are.
func (d *core) broadcastTo(members []Conn, packet []byte) (sent, visited int) {
	invalid := d.checkPacket(packet) != nil
	frame := bytebufferpool.Get()
	defer bytebufferpool.Put(frame)
	if !invalid {
		frame.B = d.cfg.Framing.AppendFrame(frame.B, packet)
	}
	d.transport().Batch(func() {
		for _, c := range members {
			own, ok := c.(*conn)
			if !ok || own.core != d {
				return
			}
			visited++
			if !invalid && own.sendFrame(frame.B) {
				sent++
			}
		}
	})
	d.stripes[0].packetsSent.Add(uint64(sent))
	return sent, visited
}

// groupSlices keeps the slices into which members are copied to be sent to without a lock.
var groupSlices = sync.Pool{New: func() any { return new([]Conn) }}

// join remembers that c is in g; false if c is closed.
func (c *conn) join(g *Group) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	m := c.moreLocked()
	m.groups = append(m.groups, g)
	return true
}

func (c *conn) leave(g *Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		return
	}
	if i := slices.Index(c.more.groups, g); i >= 0 {
		c.more.groups = slices.Delete(c.more.groups, i, i+1)
	}
}
