package load

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Shortage is a limit that is too low for so many connections.
type Shortage struct {
	Limit      string // its name
	Have, Need uint64
	Raise      string // the command
}

func (s Shortage) String() string {
	return fmt.Sprintf("%s is %d, and %d are needed: %s", s.Limit, s.Have, s.Need, s.Raise)
}

const (
	// spareServerDescriptors is what the server's process needs besides its connections. The driver keeps a 32nd of the limit, 128, and 8 for each loop, free.
	spareServerDescriptors = 500
	// spareSystemFiles is what everybody else on the machine may open meanwhile.
	spareSystemFiles = 10_000
	// usablePorts is the part of a source address' ports that is taken: those of connections that just ended wait.
	usablePorts = 0.7
	// mostSources is how many source addresses there are, 127.0.0.2 and on.
	mostSources = 250
)

// CheckLimits tells which of the system's limits are too low for one server process with so many connections, each of which takes
// memory bytes at both ends and in the kernel, and for its clients. most is how many connections they allow.
func CheckLimits(conns int, memory uint64) (shortages []Shortage, most int) {
	most = math.MaxInt
	n := uint64(conns)
	check := func(limit string, have, need uint64, allows uint64, raise string) {
		if have == 0 || have >= need { // 0: there is none, or it is not told
			return
		}
		shortages = append(shortages, Shortage{limit, have, need, raise})
		most = min(most, int(max(allows, 1)))
	}

	descriptors := n + n/30 + spareServerDescriptors
	check("RLIMIT_NOFILE", fileLimit(), descriptors, below(fileLimit(), spareServerDescriptors)/31*30,
		fmt.Sprintf("ulimit -n %d (as root, or in /etc/security/limits.d; a service: LimitNOFILE=)", descriptors))
	if openable := number("/proc/sys/fs/nr_open"); fileLimit() < descriptors {
		check("fs.nr_open", openable, descriptors, below(openable, spareServerDescriptors)/31*30, fmt.Sprintf("sysctl -w fs.nr_open=%d", descriptors))
	}
	files := number("/proc/sys/fs/file-max")
	check("fs.file-max", files, 2*n+spareSystemFiles, below(files, spareSystemFiles)/2, fmt.Sprintf("sysctl -w fs.file-max=%d", 2*n+spareSystemFiles))

	if ports := portRange(); ports > 0 {
		usable := uint64(float64(ports) * usablePorts)
		check("net.ipv4.ip_local_port_range (ports)", ports, uint64(math.Ceil(float64(n)/mostSources/usablePorts)), usable*mostSources,
			`sysctl -w net.ipv4.ip_local_port_range="10000 65535"`)
	}
	tracked := number("/proc/sys/net/netfilter/nf_conntrack_max")
	check("net.netfilter.nf_conntrack_max", tracked, n+n/10, tracked/11*10, fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", n+n/10))

	available := availableMemory()
	check("available memory (bytes)", available, n*memory, available/memory, "a larger machine")
	if len(shortages) == 0 {
		most = conns
	}
	return shortages, min(most, conns)
}

func below(limit, spare uint64) uint64 {
	if limit < spare {
		return 0
	}
	return limit - spare
}

// fileLimit is RLIMIT_NOFILE. Go has raised the soft limit to the hard one already.
func fileLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return uint64(r.Cur)
}

// number is the one that a file begins with; 0 where there is none.
func number(file string) uint64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// portRange is how many ports a source address has.
func portRange() uint64 {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	var first, last uint64
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil || last < first {
		return 0
	}
	return last - first + 1
}

// availableMemory is what the system, and the control group, leave.
func availableMemory() uint64 {
	available := uint64(0)
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemAvailable:" {
				available, _ = strconv.ParseUint(fields[1], 10, 64)
				available <<= 10
			}
		}
	}
	if group := number("/sys/fs/cgroup/memory.max"); group > 0 && available > 0 {
		available = min(available, below(group, number("/sys/fs/cgroup/memory.current")))
	}
	return available
}
