//go:build unix

package stdnet_test

import (
	"testing"

	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// TestMixedConformance: drivers on loops and on goroutines talk to one another.
func TestMixedConformance(t *testing.T) {
	onLoops := func(cfg driver.Config) (driver.Driver, error) { return driver.New(cfg) }
	secureOnLoops := func(cfg driver.Config) (driver.Driver, error) {
		d, err := driver.NewSecure(cfg)
		if err != nil {
			return nil, err
		}
		return drivertest.Secured(d), nil
	}
	t.Run("LoopServer", func(t *testing.T) { drivertest.RunMixed(t, onLoops, newPlain) })
	t.Run("LoopClient", func(t *testing.T) { drivertest.RunMixed(t, newPlain, onLoops) })
	t.Run("SecureLoopServer", func(t *testing.T) { drivertest.RunMixed(t, secureOnLoops, newSecure) })
	t.Run("SecureLoopClient", func(t *testing.T) { drivertest.RunMixed(t, newSecure, secureOnLoops) })
}
