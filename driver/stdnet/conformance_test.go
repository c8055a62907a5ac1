package stdnet_test

import (
	"testing"

	"go.uber.org/goleak"

	"gridstream/driver"
	"gridstream/driver/drivertest"
	"gridstream/driver/stdnet"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // the goroutines that importing gnet starts
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

func newPlain(cfg driver.Config) (driver.Driver, error) { return stdnet.New(cfg) }

func newSecure(cfg driver.Config) (driver.Driver, error) {
	d, err := stdnet.NewSecure(cfg)
	if err != nil {
		return nil, err
	}
	return drivertest.Secured(d), nil
}

func TestConformance(t *testing.T) { drivertest.Run(t, newPlain) }

func TestSecureConformance(t *testing.T) { drivertest.Run(t, newSecure) }
