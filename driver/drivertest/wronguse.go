package drivertest

func wrongUseProperties() []property { return nil }
