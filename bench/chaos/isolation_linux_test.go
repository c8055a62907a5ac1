package chaos_test

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// isolated has the test go on in a process and a network namespace of its own, and returns true there; false in the test that started it, when it is over.
func isolated(t *testing.T, of network) bool {
	t.Helper()
	const role = "GRIDSTREAM_CHAOS_ISOLATED"
	if os.Getenv(role) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=4m", "-test.parallel=8")
	cmd.Env = append(os.Environ(), role+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	of.prepare(t, cmd)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Skipf("no process of its own: %v", err)
	}
	text, err := io.ReadAll(out)
	require.NoError(t, err)
	err = cmd.Wait()
	t.Logf("%s", text)
	require.NoError(t, err)
	showSkips(t, string(text))
	return false
}

// showSkips skips here what was skipped there.
func showSkips(t *testing.T, text string) {
	for _, skipped := range regexp.MustCompile(`--- SKIP: (\S+)`).FindAllStringSubmatch(text, -1) {
		name, reason := skipped[1], "it does not say why"
		said := regexp.MustCompile(`(?m)^=== RUN   ` + regexp.QuoteMeta(name) + `\n\s+\S+:\d+: (.*)$`).FindStringSubmatch(text)
		if said != nil {
			reason = said[1]
		}
		if name == t.Name() {
			t.Skip(reason)
		}
		t.Run(strings.TrimPrefix(name, t.Name()+"/"), func(t *testing.T) { t.Skip(reason) })
	}
}

// network is a network namespace, and what has to be there to make something of it.
type network struct{ commands, files []string }

// prepare has cmd get it, or skips the test where that cannot be.
func (n network) prepare(t *testing.T, cmd *exec.Cmd) {
	if os.Getuid() != 0 {
		t.Skip("a network namespace takes root")
	}
	for _, command := range n.commands {
		if _, err := exec.LookPath(command); err != nil {
			t.Skipf("no %s: Debian's package iproute2 has it", command)
		}
	}
	for _, file := range n.files {
		if _, err := os.Stat(file); err != nil {
			t.Skip(err)
		}
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
}

// atRest looks that the process uses next to no processor, if nothing but innocent connections wants any: that nothing is tried over and over.
func atRest(t *testing.T) {
	t.Helper()
	before := processorTime(t)
	window := time.NewTimer(500 * time.Millisecond) // the time in which it is measured
	<-window.C
	if used := processorTime(t) - before; used > 150*time.Millisecond {
		t.Errorf("it spins: %v of processor time in half a second\n%s", used, stacks())
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
