//go:build linux

package chaos_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// A role is what the test binary does in a process of its own: it reads its order, a line, and then does as it is told, a word a
// line, until its input ends, which is what happens when whoever gave the order is gone. What it has to say are JSON values.
var roles = map[string]func(order []byte, commands <-chan string, say func(any)) error{
	"players":   runPlayers,
	"attackers": runAttackers,
}

const roleVariable = "GRIDSTREAM_CHAOS_ROLE"

func runRole(name string) int {
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return 1
	}
	order := append([]byte(nil), in.Bytes()...)
	commands := make(chan string)
	go func() {
		defer close(commands)
		for in.Scan() {
			commands <- in.Text()
		}
	}()
	out := json.NewEncoder(os.Stdout)
	if err := roles[name](order, commands, func(v any) { _ = out.Encode(v) }); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		return 1
	}
	return 0
}

// child is a process with a role.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	says  *json.Decoder
}

func startRole(t *testing.T, name string, order any) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0])}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+name)
	c.cmd.Stderr = os.Stderr
	var err error
	c.stdin, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.says = json.NewDecoder(stdout)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { // where it was not ended
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
	})
	require.NoError(t, json.NewEncoder(c.stdin).Encode(order))
	return c
}

// tell gives a command, and hears gets the answer.
func (c *child) tell(command string, answer any) {
	c.t.Helper()
	_, err := io.WriteString(c.stdin, command+"\n")
	require.NoError(c.t, err)
	c.hear(answer)
}

func (c *child) hear(answer any) {
	c.t.Helper()
	require.NoError(c.t, c.says.Decode(answer), "the process is gone")
}

// end has it end.
func (c *child) end() {
	c.t.Helper()
	require.NoError(c.t, c.stdin.Close())
	require.NoError(c.t, c.cmd.Wait())
}
