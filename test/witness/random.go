package witness

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

// Seed is the seed of a random test, drawn or given with -seed. It is logged.
func Seed(tb testing.TB) uint64 {
	tb.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	tb.Logf("seed %d; replay with -seed=%d", s, s)
	return s
}

// Random is a source that begins with Seed.
func Random(tb testing.TB) *rand.Rand {
	tb.Helper()
	return rand.New(rand.NewPCG(Seed(tb), 1))
}
