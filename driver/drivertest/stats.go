package drivertest

func statsProperties() []property { return nil }
