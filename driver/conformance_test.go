package driver_test

import (
	"testing"

	"gridstream/driver"
	"gridstream/driver/drivertest"
)

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(cfg driver.Config) (driver.Driver, error) { return driver.New(cfg) })
}
