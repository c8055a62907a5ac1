package drivertest

func gridMateProperties() []property { return nil }
