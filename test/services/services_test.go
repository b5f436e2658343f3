// Package services has programs on three mounts of a cluster use locks, values and
// queues as files, while what they run on is killed, hangs or is cut off, and
// checks that all they were told is linearizable.
package services

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"dos/test/cluster"
)

var (
	long = flag.Bool("long", false, "more rounds and more operations")
	seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")
)

// wholeLimit bounds how long all may take to take part again.
const wholeLimit = 2 * time.Minute

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

// three is a cluster of three machines, each with all roles.
func three(t *testing.T) *cluster.Cluster {
	t.Helper()
	cluster.NeedFuse(t)
	cluster.Need(t, "flock")
	c := cluster.Founded(t, "2+1", cluster.Spec{})
	c.Join(t, cluster.Spec{})
	c.Join(t, cluster.Spec{})
	whole(t, c)
	return c
}

// whole waits until all machines take part.
func whole(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	c.AwaitMembers(t, len(c.Machines), wholeLimit)
	c.AwaitHealth(t, "ok", wholeLimit)
}
