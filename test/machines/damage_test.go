package machines

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestFlippedLog flips bits in the Raft log of one machine of three after the
// other, the one in charge among them. It cannot prove its log whole, so it has
// no say any more; it gets the metadata from the others, by itself.
func TestFlippedLog(t *testing.T) {
	cluster.NeedFuse(t)
	rnd := witness.Random(t)
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	m := c.Mount(t)
	w := witness.NewWriter(t, m.Path("w"), rnd)
	for range 20 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	leader := c.Leader(t)
	other := c.Machines[rnd.IntN(3)]
	for other == leader {
		other = c.Machines[rnd.IntN(3)]
	}
	for _, victim := range []*cluster.Machine{other, leader} {
		before := c.Promoted(t, victim)
		victim.Kill(t)
		flip(t, rnd, filepath.Join(victim.Data, "meta", "raft"))
		for range 5 { // they go on without it
			if err := w.Step(); err != nil {
				t.Fatal(err)
			}
		}
		victim.Again(t)
		if _, err := os.Stat(filepath.Join(victim.Data, "meta.lost-1")); err != nil {
			t.Errorf("what %s had, damaged, was not set aside: %v", victim.Name, err)
		}
		cluster.Await(t, repairLimit, func() error {
			for _, id := range c.Promoted(t, victim) {
				if !slices.Contains(before, id) {
					return nil
				}
			}
			return fmt.Errorf("%s has no new member with a vote", victim.Name)
		})
		c.AwaitMembers(t, 3, repairLimit)
		c.AwaitHealth(t, "ok", repairLimit)
		w.Verify(t, fmt.Sprintf("%s had a damaged log", victim.Name))
	}
	fsck(t, c)
}

// flip flips a bit in the midst of what each log file below dir holds.
func flip(t *testing.T, rnd *rand.Rand, dir string) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used := len(bytes.TrimRight(b, "\x00"))
		at, bit := used/4+rnd.IntN(used/2), rnd.IntN(8)
		// Of as many bytes one matters: a frame's padding and what it does not use are
		// fewer (raft-wal's README).
		for i := range 16 {
			b[at+i] ^= 1 << bit
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Logf("flipped bit %d of 16 bytes from byte %d of %s", bit, at, path)
	}
}
