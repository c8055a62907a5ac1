package drivertest

func receiveProperties() []property { return nil }
