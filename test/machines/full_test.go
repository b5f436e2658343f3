package machines

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestFullDisk has others take all the room on the disk of one machine, under a
// load. Its store takes nothing more, which nobody at the mount hears of: what it
// was to have goes to the spare. The status says so, and when there is room, the
// store is used again.
func TestFullDisk(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "fio")
	disk := cluster.SmallDisk(t, 1<<30)
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	d := c.Join(t, cluster.Spec{Roles: "chunk", Data: filepath.Join(disk, "data")})
	awaitStores(t, c, 4)
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("before"), 1)
	load := startVerify(t, m.Path("load"), 1)
	defer load.end(t)
	load.runs(t, "room for all")

	full := fmt.Sprintf("on %s) is full", d.Name)
	says := func(want bool) {
		t.Helper()
		cluster.Await(t, repairLimit, func() error {
			r := c.Ctl(t, "status", "--long")
			if r.Code != 0 || strings.Contains(r.Stdout, full) != want {
				return fmt.Errorf("dosctl status (exit status %d) says %q: %v, want %v\n%s%s", r.Code, full, !want, want, r.Stdout, r.Stderr)
			}
			return nil
		})
	}
	says(false)
	others := filepath.Join(disk, "others")
	cluster.TakeAll(t, others)
	says(true)
	had := shards(t, c, d)
	files.Add(t, m.Path("meanwhile"), 2)
	load.runs(t, "one disk is full")
	if has := shards(t, c, d); has > had {
		t.Errorf("a full store has %d shards, and had %d", has, had)
	}
	files.Check(t, "one disk is full")
	d.Kill(t)
	d.Again(t) // it starts with a full disk, too
	files.Check(t, "one disk is full, its machine was killed")

	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	says(false)
	had = shards(t, c, d)
	files.Add(t, m.Path("after"), 3)
	cluster.Await(t, repairLimit, func() error {
		if has := shards(t, c, d); has <= had {
			return fmt.Errorf("there is room, and the store has %d shards and had %d", has, had)
		}
		return nil
	})
	load.end(t)
	c.AwaitHealth(t, "ok", repairLimit)
	awaitRedundancy(t, c, 4)
	cluster.DropCaches(t)
	files.Check(t, "at the end")
	fsck(t, c)
}

// shards is how many shards the store of a machine has, as the status says.
func shards(tb testing.TB, c *cluster.Cluster, m *cluster.Machine) int {
	tb.Helper()
	r := c.Ctl(tb, "status", "--long")
	for line := range strings.Lines(r.Stdout) {
		// store ID STATE used N free N capacity N shards N node NAME path PATH
		f := strings.Fields(line)
		if len(f) < 13 || f[0] != "store" || f[12] != m.Name {
			continue
		}
		n, err := strconv.Atoi(f[10])
		if err != nil || f[9] != "shards" {
			tb.Fatalf("dosctl status: %q: %v", line, err)
		}
		return n
	}
	tb.Fatalf("dosctl status: exit status %d and no store of %s\n%s%s", r.Code, m.Name, r.Stdout, r.Stderr)
	return 0
}
