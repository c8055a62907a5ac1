package drivertest

func concurrencyProperties() []property { return nil }
