package main

import (
	"runtime"
	"syscall"
	"time"

	"gridstream/driver"
)

// sample is the server's process at one moment.
type sample struct {
	at                        time.Time
	cpu                       time.Duration // user and system
	stats                     driver.Stats
	established, disconnected uint64
}

func (s *server) sample() sample {
	return sample{
		at:           time.Now(),
		cpu:          cpuTime(),
		stats:        s.drv.Stats(),
		established:  s.established.Load(),
		disconnected: s.disconnected.Load(),
	}
}

// rates are per second.
type rates struct {
	packetsIn, packetsOut float64
	megabytesIn           float64
	megabytesOut          float64
	cores                 float64
}

func (s sample) since(before sample) rates {
	seconds := s.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return rates{}
	}
	per := func(now, then uint64) float64 { return float64(now-then) / seconds }
	return rates{
		packetsIn:    per(s.stats.PacketsReceived, before.stats.PacketsReceived),
		packetsOut:   per(s.stats.PacketsSent, before.stats.PacketsSent),
		megabytesIn:  per(s.stats.BytesReceived, before.stats.BytesReceived) / 1e6,
		megabytesOut: per(s.stats.BytesSent, before.stats.BytesSent) / 1e6,
		cores:        (s.cpu - before.cpu).Seconds() / seconds,
	}
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// liveBytes is the heap that is reachable, and the goroutines' stacks.
func liveBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
