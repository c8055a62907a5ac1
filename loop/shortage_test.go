//go:build linux || darwin

package loop_test

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gridstream/loop"
	"gridstream/loop/link"
)

// limitDescriptors is RLIMIT_NOFILE of this process until the test ends.
func limitDescriptors(t *testing.T, n uint64) {
	var r syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r))
	before := r
	r.Cur = n
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r))
	t.Cleanup(func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)) })
}

// takeDescriptors takes all that are left, until the test ends or give is called.
func takeDescriptors(t *testing.T) (give func()) {
	var files []*os.File
	give = func() {
		for _, f := range files {
			f.Close()
		}
	}
	t.Cleanup(give)
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			return give
		}
		files = append(files, f)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

// settle waits until the loop has done what it was asked to before, and what that left to it.
func settle(t *testing.T, c *end) {
	t.Helper()
	for range 2 {
		before := c.snapshot().wakes
		c.Wake()
		eventually(t, "OnWake", func() bool { s := c.snapshot(); return s.wakes > before || s.closes > 0 })
	}
}

func parked(c *end) bool { return loop.Parked(c.Sealing) }

// park pauses reading, and waits until nothing is read any more.
func park(t *testing.T, c *end) {
	t.Helper()
	c.Pause(1)
	eventually(t, "parked", func() bool { return parked(c) || c.snapshot().closes > 0 })
	require.Equal(t, link.Open, c.State(), "%v", c.snapshot().reason)
}

// TestPausingWithoutDescriptors: one connection after the other, whoever takes what gets free.
func TestPausingWithoutDescriptors(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	var conns []*end
	for range 5 { // more than there are spare descriptors
		c, _ := pair(t, e, nil)
		conns = append(conns, c)
	}
	limitDescriptors(t, 200)
	takeDescriptors(t)
	for _, c := range conns {
		park(t, c)
		settle(t, c)
		takeDescriptors(t)
	}
}

// TestLoopsPauseAtOnceWithoutDescriptors: each may have for a moment what another one needs.
func TestLoopsPauseAtOnceWithoutDescriptors(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 2})
	var conns []*end
	for range 60 {
		c, _ := pair(t, e, nil)
		conns = append(conns, c)
	}
	limitDescriptors(t, 300)
	takeDescriptors(t)
	for _, c := range conns {
		c.Pause(1)
	}
	for _, c := range conns {
		park(t, c)
	}
}

// TestPausingWaitsForADescriptor: nobody gives one back, and who has little to say stays meanwhile.
func TestPausingWaitsForADescriptor(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	c, peer := pair(t, e, nil)
	other, _ := pair(t, e, nil)
	before := 2 * loop.UnparkedMost
	_, err := peer.Write(make([]byte, before))
	require.NoError(t, err)
	eventually(t, "what came before", func() bool { return c.size() == before })
	limitDescriptors(t, 200)
	takeDescriptors(t)
	spares := e.TakeSpares()
	c.Pause(1)
	other.Pause(1)
	settle(t, c)
	_, err = peer.Write([]byte("a"))
	require.NoError(t, err)
	eventually(t, "what is not much", func() bool { return c.size() == before+1 })
	settle(t, c)
	for _, c := range []*end{c, other} {
		require.Equal(t, link.Open, c.State(), "%v", c.snapshot().reason)
		require.False(t, parked(c))
	}

	closeAll(spares)
	eventually(t, "both parked", func() bool { return parked(c) && parked(other) })
	_, err = peer.Write([]byte("b"))
	require.NoError(t, err)
	settle(t, c)
	require.Equal(t, before+1, c.size())
	c.Resume(1)
	eventually(t, "the rest", func() bool { return c.size() == before+2 })
}

// TestUnparkedReadsWithinALimit: nobody gives a descriptor back, and the peer does not stop.
func TestUnparkedReadsWithinALimit(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	c, peer := pair(t, e, nil)
	other, _ := pair(t, e, nil)
	limitDescriptors(t, 200)
	takeDescriptors(t)
	spares := e.TakeSpares()
	defer closeAll(spares)
	c.Pause(1)
	settle(t, c)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _, _ = peer.Write(make([]byte, 64<<20)) })
	require.ErrorIs(t, c.waitClosed(t), syscall.EMFILE)
	require.Greater(t, c.size(), loop.UnparkedMost)
	require.LessOrEqual(t, c.size(), loop.UnparkedMost+128<<10, "two reads")
	require.Equal(t, link.Open, other.State())
}

// TestSpareDescriptorsComeBack when somebody was quicker, but the shortage is over.
func TestSpareDescriptorsComeBack(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 2})
	limitDescriptors(t, 200)
	give := takeDescriptors(t)
	spares := e.TakeSpares()
	defer closeAll(spares)
	require.Len(t, spares, 8)
	require.False(t, e.SparesComplete())
	give()
	eventually(t, "the spare descriptors", e.SparesComplete)
}

// TestSpareIsReplacedAtOnce: somebody takes whatever is free, for a moment.
func TestSpareIsReplacedAtOnce(t *testing.T) {
	limitDescriptors(t, 200)
	var s loop.Spare
	s.Refill()
	defer s.Close()
	takeDescriptors(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err == nil {
					_ = syscall.Close(fd)
				}
			}
		})
	}
	for range 1000 {
		fd, err := s.Replace(1)
		require.NoError(t, err)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.FD_CLOEXEC)
		require.NoError(t, syscall.Close(fd))
		eventually(t, "one again", func() bool { s.Refill(); return s.Complete() })
	}
}

// TestSpareIsNotTakenBackWhileItIsLent, by the watch, from who has not used it yet.
func TestSpareIsNotTakenBackWhileItIsLent(t *testing.T) {
	limitDescriptors(t, 200)
	var s loop.Spare
	s.Refill()
	defer s.Close()
	takeDescriptors(t)
	tries := 0
	require.NoError(t, s.Lend(func() error {
		tries++
		s.Refill()
		fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err == nil {
			err = syscall.Close(fd)
		}
		return err
	}))
	require.Equal(t, 2, tries)
	require.True(t, s.Complete())
}

// TestResumingWithoutDescriptors: enrolling takes two for a moment.
func TestResumingWithoutDescriptors(t *testing.T) {
	for free := range 3 {
		t.Run(fmt.Sprintf("free=%d", free), func(t *testing.T) {
			e := newEngine(t, link.Config{Loops: 1})
			c, peer := pair(t, e, nil)
			park(t, c)
			settle(t, c)
			limitDescriptors(t, 200)
			left := make([]int, free)
			for i := range left {
				fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
				require.NoError(t, err)
				left[i] = fd
			}
			takeDescriptors(t)
			closeAll(left)
			for range 3 {
				n := c.size()
				c.Resume(1)
				_, err := peer.Write([]byte("x"))
				require.NoError(t, err)
				eventually(t, "the byte", func() bool { return c.size() == n+1 })
				eventually(t, "the end of it", func() bool { return !e.SparesLent() })
				require.True(t, e.SparesComplete())
				takeDescriptors(t)
				park(t, c)
				settle(t, c)
			}
		})
	}
}

// TestPausingBesideResumingWithoutDescriptors: what resuming takes is not what pausing needs.
func TestPausingBesideResumingWithoutDescriptors(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	entered, leave := make(chan struct{}), make(chan struct{})
	c, peer := pair(t, e, func(c *end, _ []byte) {
		close(entered)
		<-leave
		c.Pause(1)
	})
	resumed, resumedPeer := pair(t, e, nil)
	park(t, resumed)
	settle(t, resumed)
	limitDescriptors(t, 200)
	takeDescriptors(t)
	_, err := peer.Write([]byte("a"))
	require.NoError(t, err)
	<-entered
	resumed.Resume(1)
	eventually(t, "one that waits for the loop", func() bool { return !e.SparesComplete() })
	_, err = peer.Write([]byte("b"))
	require.NoError(t, err)
	close(leave)
	eventually(t, "parked", func() bool { return parked(c) || c.snapshot().closes > 0 })
	require.Equal(t, link.Open, c.State(), "%v", c.snapshot().reason)
	require.Equal(t, 1, c.size(), "at once")
	_, err = resumedPeer.Write([]byte("c"))
	require.NoError(t, err)
	eventually(t, "the other one's byte", func() bool { return resumed.size() == 1 })
	eventually(t, "the spare descriptors", e.SparesComplete)
}

// TestPausingWhileManyResumeWithoutDescriptors: each is tried again and again, and nobody is lost.
func TestPausingWhileManyResumeWithoutDescriptors(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	var resumed, paused []*end
	var peers []io.Writer
	for range 60 {
		c, peer := pair(t, e, nil)
		resumed, peers = append(resumed, c), append(peers, peer)
		park(t, c)
		c, _ = pair(t, e, nil)
		paused = append(paused, c)
	}
	limitDescriptors(t, 400)
	free, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	require.NoError(t, err)
	takeDescriptors(t)
	closeAll([]int{free})
	for _, c := range resumed {
		c.Resume(1)
	}
	for _, c := range paused {
		park(t, c)
	}
	for i, c := range resumed {
		_, err := peers[i].Write([]byte("x"))
		require.NoError(t, err)
		eventually(t, "the byte", func() bool { return c.size() == 1 || c.snapshot().closes > 0 })
		require.Equal(t, link.Open, c.State(), "%v", c.snapshot().reason)
	}
}

// TestDetachWithoutDescriptors, and what it took is there for the next one.
func TestDetachWithoutDescriptors(t *testing.T) {
	for _, paused := range []bool{false, true} {
		t.Run(fmt.Sprintf("paused=%v", paused), func(t *testing.T) {
			e := newEngine(t, link.Config{Loops: 1})
			var conns []*end
			for range 4 {
				c, _ := pair(t, e, nil)
				if paused {
					park(t, c)
				}
				conns = append(conns, c)
			}
			last, _ := pair(t, e, nil)
			limitDescriptors(t, 200)
			takeDescriptors(t)
			for _, c := range conns {
				nc, _, err := c.Detach(io.ErrNoProgress)
				require.NoError(t, err)
				defer nc.Close()
				settle(t, last)
				takeDescriptors(t)
			}
			park(t, last)
		})
	}
}

// TestDetachThatFindsNoDescriptor leaves the connection where it is.
func TestDetachThatFindsNoDescriptor(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	c, peer := pair(t, e, nil)
	limitDescriptors(t, 200)
	give := takeDescriptors(t)
	spares := e.TakeSpares()
	defer closeAll(spares)
	_, _, err := c.Detach(io.ErrNoProgress)
	require.ErrorIs(t, err, syscall.EMFILE)
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	eventually(t, "the byte", func() bool { return c.size() == 1 })
	give()
	nc, _, err := c.Detach(io.ErrNoProgress)
	require.NoError(t, err)
	require.NoError(t, nc.Close())
}

// TestDetachOfWhoIsToBeResumed says that there is no descriptor, and does not wait until there is.
func TestDetachOfWhoIsToBeResumed(t *testing.T) {
	e := newEngine(t, link.Config{Loops: 1})
	c, peer := pair(t, e, nil)
	park(t, c)
	limitDescriptors(t, 200)
	give := takeDescriptors(t)
	spares := e.TakeSpares()
	defer closeAll(spares)
	c.Resume(1)
	_, _, err := c.Detach(io.ErrNoProgress)
	require.ErrorIs(t, err, syscall.EMFILE)
	give()
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	eventually(t, "the byte", func() bool { return c.size() == 1 })
}

// TestEndOfInputWithoutDescriptors: what is queued for a peer that sends nothing more is written all the same.
func TestEndOfInputWithoutDescriptors(t *testing.T) {
	const queued = 32 << 20 // more than the kernel takes
	e := newEngine(t, link.Config{Loops: 1})
	other, _ := pair(t, e, nil)
	var peers []io.Reader
	var ends []func()
	for range 3 { // more than there are spare descriptors
		c, peer := pair(t, e, nil)
		require.NoError(t, c.Write(nil, make([]byte, queued), queued))
		peers = append(peers, peer)
		ends = append(ends, func() {
			require.NoError(t, peer.CloseWrite())
			eventually(t, "the end of input", func() bool { return c.State() != link.Open })
		})
	}
	limitDescriptors(t, 200)
	takeDescriptors(t)
	for _, end := range ends {
		end()
		settle(t, other)
		takeDescriptors(t)
	}
	for _, peer := range peers {
		n, err := io.Copy(io.Discard, peer)
		require.NoError(t, err)
		require.EqualValues(t, queued, n)
	}
}
