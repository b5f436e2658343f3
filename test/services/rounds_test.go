package services

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dos/test/cluster"
)

const (
	// workTime bounds how long programs work after the fault of a round is over. It is
	// enough for their share where the machine has little else to do.
	workTime = 9 * time.Second
	// fewest is how many operations there are on the busiest machine.
	fewest = 10000
	// drainLimit bounds how long the last messages may take, some of which dead mounts
	// have, on a busy machine.
	drainLimit = 2 * time.Minute
	// shortly is how long a machine is away.
	shortly = 3 * time.Second
	// cutTime is how long a mount is cut off: it keeps its session.
	cutTime = 6 * time.Second
	// pauseTime is how long a mount stands still: its session is over then.
	pauseTime = 20 * time.Second
	// patience is how long a mount that cannot be reached surely keeps its session. A
	// busy machine may take long to end a disturbance.
	patience = 10 * time.Second
)

// A round is a fault, and what ends it.
type round struct {
	name string
	do   func(t *testing.T, c *cluster.Cluster, sites []*site, rnd *rand.Rand)
}

// rounds returns the faults in the order in which they are to be.
func rounds(rnd *rand.Rand) (list []round) {
	n := 1
	if *long {
		n = 8
	}
	for range n {
		faults := slices.Clone(faults)
		rnd.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		list = append(list, faults...)
	}
	return list
}

var faults = []round{
	{"the leader killed", func(t *testing.T, c *cluster.Cluster, _ []*site, _ *rand.Rand) {
		m := c.Leader(t)
		m.Kill(t)
		time.Sleep(shortly) // that is how long it is away
		m.Again(t)
	}},
	{"all machines killed", func(t *testing.T, c *cluster.Cluster, _ []*site, _ *rand.Rand) {
		for _, m := range c.Machines {
			m.Kill(t)
		}
		c.Restart(t)
	}},
	{"a mount cut off", func(t *testing.T, _ *cluster.Cluster, sites []*site, rnd *rand.Rand) {
		s := sites[rnd.IntN(len(sites))]
		began := time.Now()
		s.Cut(t)
		time.Sleep(cutTime) // that is how long it is so
		s.Heal(t)
		if lasted := time.Since(began); lasted > patience {
			t.Fatalf("it lasted %v", lasted)
		}
	}},
	{"a mount killed", func(t *testing.T, _ *cluster.Cluster, sites []*site, rnd *rand.Rand) {
		s := sites[rnd.IntN(len(sites))]
		defer s.disturb()()
		s.Kill(t)
		s.Again(t)
	}},
	// Nothing is executed meanwhile: that would close what this process has open on the
	// mount, and wait for it.
	{"a mount stopped, and the leader killed", func(t *testing.T, c *cluster.Cluster, sites []*site, rnd *rand.Rand) {
		s := sites[rnd.IntN(len(sites))]
		m := c.Leader(t)
		over := s.disturb()
		s.Pause(t)
		m.Kill(t)
		time.Sleep(pauseTime) // that is how long it is so
		s.Resume(t)
		m.Again(t)
		over()
	}},
}
