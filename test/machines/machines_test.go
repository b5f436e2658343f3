// Package machines runs dos on several machines, each a process with a network
// of its own, and breaks them as machines break: they are killed, hang, are cut
// off and lose their disks, one and two at a time. What mounts were told must
// stay true all the while.
package machines

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"dos/test/cluster"
)

var (
	// long asks for what the judges do.
	long = flag.Bool("long", false, "all rounds (half an hour)")
	seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")
)

// repairLimit bounds how long full redundancy may take to come back with as
// little data as there is here.
const repairLimit = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// random returns a source whose seed is logged.
func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d; replay with -seed=%d", s, s)
	return rand.New(rand.NewPCG(s, 1))
}
