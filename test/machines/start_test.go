package machines

import (
	"os"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestOneMachine founds a cluster of one machine, on a network and on loopback,
// and mounts it: what was written is there after its crash and its clean stop.
func TestOneMachine(t *testing.T) {
	cluster.NeedFuse(t)
	for _, c := range []struct {
		name  string
		found func(testing.TB, string, cluster.Spec) *cluster.Cluster
	}{
		{"network", cluster.Founded},
		{"loopback", cluster.FoundedLocal},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := c.found(t, "2+1", cluster.Spec{Flags: threeDisks(t)})
			all.AwaitHealth(t, "ok", repairLimit)
			m := all.Mount(t)
			files := make(witness.Files)
			files.Add(t, m.Path("files"), 1)
			one := all.Machines[0]
			one.Kill(t)
			one.Again(t)
			awaitReads(t, files)
			files.Check(t, "after a crash")
			m.Cold(t)
			files.Check(t, "mounted again")
			one.Stop(t)
			one.Again(t)
			cluster.DropCaches(t)
			awaitReads(t, files)
			files.Check(t, "after a stop")
			all.AwaitHealth(t, "ok", repairLimit)
		})
	}
}

// threeDisks are the flags of a machine that has three stores.
func threeDisks(tb testing.TB) []string {
	dir := cluster.Dir(tb)
	return []string{"--disk", dir + "/0", "--disk", dir + "/1", "--disk", dir + "/2"}
}

// awaitReads waits until everything can be read: a mount does not hear at once
// that stores are back.
func awaitReads(tb testing.TB, files witness.Files) {
	tb.Helper()
	cluster.Await(tb, errorLimit, func() error {
		for path := range files {
			if _, err := os.ReadFile(path); err != nil {
				return err
			}
		}
		return nil
	})
}
