//go:build unix

package driver

import (
	"gridstream/loop"
	"gridstream/loop/link"
)

// onLoops starts the event loops.
func onLoops() (link.Start, error) { return loop.Start, nil }
