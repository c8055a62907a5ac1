package drivertest

func limitProperties() []property { return nil }
