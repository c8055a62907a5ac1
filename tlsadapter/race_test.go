//go:build race

package tlsadapter_test

const raceEnabled = true
