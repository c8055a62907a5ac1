package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// machine is lines that describe where the results come from.
type machine struct{ lines []string }

func describeMachine() *machine {
	m := &machine{}
	m.add("system", runtime.GOOS+"/"+runtime.GOARCH)
	m.add("go", runtime.Version())
	m.add("cores", fmt.Sprint(runtime.NumCPU()))
	m.add("processor", field("/proc/cpuinfo", "model name"))
	m.add("memory", field("/proc/meminfo", "MemTotal"))
	m.add("kernel", firstWords("/proc/sys/kernel/osrelease", 1))
	m.add("ports", firstWords("/proc/sys/net/ipv4/ip_local_port_range", 2))
	m.add("somaxconn", firstWords("/proc/sys/net/core/somaxconn", 1))
	m.add("load before", firstWords("/proc/loadavg", 3))
	return m
}

func (m *machine) add(name, value string) {
	if value != "" {
		m.lines = append(m.lines, name+": "+value)
	}
}

func (m *machine) finish(o runOptions, took time.Duration) {
	m.add("load after", firstWords("/proc/loadavg", 3))
	m.add("rounds", fmt.Sprint(o.rounds))
	m.add("benchtime", o.benchtime)
	m.add("took", took.Round(time.Second).String())
}

func (m *machine) String() string { return strings.Join(m.lines, "\n") + "\n" }

// field is the value of the first line "name: value" of a file; empty where there is none.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstWords(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	words := strings.Fields(string(text))
	return strings.Join(words[:min(n, len(words))], " ")
}
