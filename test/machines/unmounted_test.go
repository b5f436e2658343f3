package machines

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestUnmountedDisk starts a machine one of whose disks is not mounted. Nothing is
// begun in the folder below it, the status says what to mount, and then the store
// has what it had.
func TestUnmountedDisk(t *testing.T) {
	cluster.NeedFuse(t)
	disk := cluster.SmallDisk(t, 1<<30)
	c := cluster.FoundedLocal(t, "2+1", cluster.Spec{Flags: append(threeDisks(t)[:4], "--disk", disk)})
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	one := c.Machines[0]
	one.Stop(t)
	if err := cluster.Detach(disk); err != nil {
		t.Fatal(err)
	}
	one.Again(t)
	cluster.DropCaches(t)
	files.Check(t, "one disk is not mounted")
	cluster.Await(t, repairLimit, func() error {
		r := c.Ctl(t, "status")
		if want := fmt.Sprintf("is not mounted: mount %s;", disk); !strings.Contains(r.Stdout, want) {
			return fmt.Errorf("dosctl status (exit status %d) does not say %q:\n%s%s", r.Code, want, r.Stdout, r.Stderr)
		}
		return nil
	})
	if list, err := os.ReadDir(disk); err != nil || len(list) > 0 {
		t.Errorf("in the folder below the disk there is %v, %v", list, err)
	}
	cluster.MountDisk(t, disk)
	c.AwaitHealth(t, "ok", repairLimit)
	if r := c.Ctl(t, "events"); strings.Contains(r.Stdout, "starts empty") {
		t.Errorf("a store that came back started empty:\n%s", r.Stdout)
	}
	files.Check(t, "it is mounted again")
	fsck(t, c)
}
