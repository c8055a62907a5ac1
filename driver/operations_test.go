package driver_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOperationsDocument: the program of docs/operations.md is the example, which is compiled.
func TestOperationsDocument(t *testing.T) {
	source, err := os.ReadFile("example_operations_test.go")
	require.NoError(t, err)
	text, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	shown := 0
	for _, block := range strings.Split(string(text), "```go\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		require.Contains(t, strings.ReplaceAll(string(source), "\t", ""), "\n"+strings.ReplaceAll(block, "\t", "")+"\n")
		shown++
	}
	require.Equal(t, 2, shown)
}
