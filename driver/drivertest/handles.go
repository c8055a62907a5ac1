package drivertest

func handleProperties() []property { return nil }
