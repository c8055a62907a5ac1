//go:build unix

package stdnet_test

import (
	"testing"

	"gridstream/driver/drivertest"
)

// TestMixedConformance: drivers on loops and on goroutines talk to one another.
func TestMixedConformance(t *testing.T) {
	t.Run("LoopServer", func(t *testing.T) { drivertest.RunMixed(t, newOnLoops, newPlain) })
	t.Run("LoopClient", func(t *testing.T) { drivertest.RunMixed(t, newPlain, newOnLoops) })
	t.Run("SecureLoopServer", func(t *testing.T) { drivertest.RunMixed(t, newSecureOnLoops, newSecure) })
	t.Run("SecureLoopClient", func(t *testing.T) { drivertest.RunMixed(t, newSecure, newSecureOnLoops) })
}
