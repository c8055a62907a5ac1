package drivertest

func lifecycleProperties() []property { return nil }
