package tasks

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dos/test/cluster"
)

// A machine that is turned out while it runs a task ends, and the task there with it before it
// runs elsewhere; nothing of that is in the tree afterwards, and nothing is left on the machine.
func TestRevoked(t *testing.T) {
	if !*long {
		t.Skip("a machine's session has to end, and its mount and runner after that; run it with -long")
	}
	c, points := three(t)
	for _, m := range c.Machines {
		t.Cleanup(func() { _ = cluster.Detach(points[m.Name]) }) // of the one that ends
	}
	dir := cluster.Dir(t)
	task := submit(t, points["a"], "(while :; do echo $DOS_ATTEMPT >>$DOS_MOUNT/said; sleep 0.01; done) &\n"+script(dir))
	first := process(t, dir, 1)
	its, other := running(t, c, points, task)
	task = filepath.Join(points[other.Name], "tasks", filepath.Base(task))
	said := filepath.Join(points[other.Name], "said")
	awaitText(t, said, "1\n", soon)
	pid := runner(t, its.Data)
	if r := other.Ctl(t, "identity", "revoke", its.Name, "--node"); r.Code != 0 {
		t.Fatalf("dosctl identity revoke: exit status %d\n%s", r.Code, r.Stderr)
	}
	if r := its.Ended(t); r.Code == 0 || !strings.Contains(r.Stderr, "was removed from its cluster") {
		t.Errorf("the machine ended with status %d:\n%s", r.Code, r.Stderr)
	}
	process(t, dir, 2)
	if lives(first) {
		t.Error("the first attempt lives")
	}
	if again, _ := running(t, c, points, task); again == its {
		t.Errorf("it runs on %s again, which was turned out", its.Name)
	}
	awaitText(t, said, "\n2\n", 2*soon)
	finish(t, task, dir, 2)
	if _, rest, _ := strings.Cut(read(said), "\n2\n"); strings.Contains("\n"+rest, "\n1\n") {
		t.Errorf("the first attempt writes after the second: %q", rest)
	}
	cluster.Await(t, soon, func() error {
		if lives(pid) {
			return fmt.Errorf("the runner of the machine that was turned out goes on:\n%s", read(filepath.Join(its.Data, "run", "log")))
		}
		return nil
	})
}
