package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// memory is what is in use at one moment.
type memory struct {
	heapAndStack uint64
	resident     uint64 // RSS of the process; 0: not told
	kernel       uint64 // slabs, and pages in sockets' buffers, of the whole system; 0: not told
	goroutines   int
}

// inUse is what is in use when all is collected, and given back to the system.
func inUse() memory {
	for range 3 {
		runtime.GC() // sync.Pool lets go of what it holds in two cycles
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{
		heapAndStack: m.HeapAlloc + m.StackInuse,
		resident:     resident(),
		kernel:       slabs() + socketBuffers(),
		goroutines:   runtime.NumGoroutine(),
	}
}

// Cost is what one of many connections costs the server, in bytes.
type Cost struct {
	HeapAndStack float64
	Resident     float64 // 0: not told
	Kernel       float64 // half of what both ends take; 0: not told
	Goroutines   float64
}

func (m memory) since(before memory, conns int) Cost {
	each := func(now, then uint64) float64 {
		if then == 0 {
			return 0
		}
		return (float64(now) - float64(then)) / float64(conns)
	}
	return Cost{
		HeapAndStack: each(m.heapAndStack, before.heapAndStack),
		Resident:     each(m.resident, before.resident),
		Kernel:       each(m.kernel, before.kernel) / 2,
		Goroutines:   float64(m.goroutines-before.goroutines) / float64(conns),
	}
}

func resident() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages uint64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// slabs is the memory of the kernel's objects: those in use where /proc/slabinfo may be read, whole slabs otherwise.
func slabs() (total uint64) {
	if text, err := os.ReadFile("/proc/slabinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			// name <active_objs> <num_objs> <objsize> …
			if fields := strings.Fields(line); len(fields) > 3 {
				active, err1 := strconv.ParseUint(fields[1], 10, 64)
				size, err2 := strconv.ParseUint(fields[3], 10, 64)
				if err1 == nil && err2 == nil {
					total += active * size
				}
			}
		}
		return total
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "Slab:" {
			total, _ = strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return total << 10
}

// socketBuffers is what TCP sockets hold in their buffers.
func socketBuffers() uint64 {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0
	}
	_, line, _ := bytes.Cut(text, []byte("\nTCP: "))
	line, _, _ = bytes.Cut(line, []byte("\n"))
	_, pages, _ := strings.Cut(string(line), " mem ")
	n, _ := strconv.ParseUint(pages, 10, 64)
	return n * uint64(os.Getpagesize())
}
