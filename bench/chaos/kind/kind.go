// Package kind makes drivers of every implementation, plain and with TLS, that all trust one another.
package kind

import (
	"gridstream/driver"
	"gridstream/driver/drivertest"
	"gridstream/driver/stdnet"
)

// Kind is an implementation of driver.Driver.
type Kind struct {
	Stdnet bool // on goroutines, not on event loops
	TLS    bool
}

// All are the four.
var All = []Kind{{}, {Stdnet: true}, {TLS: true}, {Stdnet: true, TLS: true}}

// String is e.g. "loops" or "stdnet+tls".
func (k Kind) String() string {
	s := "loops"
	if k.Stdnet {
		s = "stdnet"
	}
	if k.TLS {
		s += "+tls"
	}
	return s
}

// New makes a driver that is not initialized. With TLS its certificate, and the only one that it trusts, is desc's.
func (k Kind) New(cfg driver.Config, desc driver.SecureDesc) (driver.Driver, error) {
	switch {
	case k.TLS && k.Stdnet:
		d, err := stdnet.NewSecure(cfg)
		return secured{d, desc}, err
	case k.TLS:
		d, err := driver.NewSecure(cfg)
		return secured{d, desc}, err
	case k.Stdnet:
		return stdnet.New(cfg)
	}
	return driver.New(cfg)
}

type secured struct {
	drivertest.SecureDriver
	desc driver.SecureDesc
}

// Initialize implements driver.Driver.
func (s secured) Initialize(b driver.Bind) error { return s.InitializeSecurity(b, s.desc) }
