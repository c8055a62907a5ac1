package drivertest

func addressProperties() []property { return nil }
