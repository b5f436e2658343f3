package machines

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// drainLimit bounds how long a machine with as little data may take to be drained.
const drainLimit = 3 * time.Minute

// TestChange has one more machine join, one drained and one removed, under a
// load that checks what it reads. It is never told of anything.
func TestChange(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "fio")
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	load := startVerify(t, m.Path("load"), 1)
	defer load.end(t)

	d := c.Join(t, cluster.Spec{})
	awaitStores(t, c, 4)
	load.runs(t, "one more joined")
	gone := c.Machines[1]
	if r := d.Ctl(t, "node", "drain", gone.Name); r.Code != 0 {
		t.Fatalf("dosctl node drain: exit status %d\n%s", r.Code, r.Stderr)
	}
	cluster.Await(t, drainLimit, func() error {
		r := d.Ctl(t, "node", "remove", gone.Name)
		if r.Code != 0 {
			return fmt.Errorf("dosctl node remove: exit status %d: %s", r.Code, strings.TrimSpace(r.Stderr))
		}
		return nil
	})
	load.runs(t, "one was drained and removed")
	if r := gone.Ended(t); r.Code != 1 {
		t.Errorf("machine %s, removed: exit status %d\n%s", gone.Name, r.Code, r.Stderr)
	}
	// What a machine shows of the others is a second old.
	cluster.Await(t, drainLimit, func() error {
		if r := d.Ctl(t, "node", "list"); r.Code != 0 || strings.Contains(r.Stdout, "\n"+gone.Name+" ") {
			return fmt.Errorf("dosctl node list after the removal of %s: exit status %d\n%s%s", gone.Name, r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
	load.end(t)
	cluster.DropCaches(t)
	files.Check(t, "one joined, one left")
	c.Machines = append(c.Machines[:1], c.Machines[2:]...)
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	fsck(t, c)
}
