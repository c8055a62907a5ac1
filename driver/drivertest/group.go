package drivertest

func groupProperties() []property { return nil }
