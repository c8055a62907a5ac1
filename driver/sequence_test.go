package driver_test

import (
	"testing"

	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// FuzzSequence: whatever is done to a connection, in whatever order, it does as the model. The conformance suite has random sequences.
func FuzzSequence(f *testing.F) {
	const client, settles = 0x40, 0x80
	for _, secure := range []bool{false, true} {
		f.Add([]byte{0, client, 2, client | 1, 3, client | 5 | settles, 0, 7 | settles}, secure)
		f.Add([]byte{2, client | 1, client | 5, 9, 0, 6 | settles, 10, client | 10, 1, 5 | settles}, secure)
		f.Add([]byte{1, client | 1, 8 | settles, client | 1, client | 9 | settles, 1, 11, 0, client | 11}, secure)
	}
	f.Fuzz(func(t *testing.T, ops []byte, secure bool) {
		newDriver := func(cfg driver.Config) (driver.Driver, error) { return driver.New(cfg) }
		if secure {
			newDriver = newSecured
		}
		drivertest.Sequence(t, newDriver, secure, ops)
	})
}
