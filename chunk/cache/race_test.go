//go:build race

package cache

// The race detector's own memory is more than what is measured.
func init() { raceDetector = true }
