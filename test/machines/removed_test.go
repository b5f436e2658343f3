package machines

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dos/test/cluster"
)

// statusAge bounds how old what a machine shows may be.
const statusAge = 5 * time.Second

// TestRemoved removes a machine that runs while another is down, which together
// are most of those with a vote, and then that one. Each ends by itself with a line
// that says why, then and at each start; neither is there again.
func TestRemoved(t *testing.T) {
	c := cluster.FoundedLocal(t, "1+1", cluster.Spec{})
	for range 3 {
		c.Join(t, cluster.Spec{})
	}
	awaitStores(t, c, 4)
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	a, up, down := c.Machines[0], c.Machines[1], c.Machines[2]
	down.Kill(t)
	for _, m := range []*cluster.Machine{up, down} {
		if r := a.Ctl(t, "node", "drain", m.Name); r.Code != 0 {
			t.Fatalf("dosctl node drain: exit status %d\n%s", r.Code, r.Stderr)
		}
		cluster.Await(t, drainLimit, func() error {
			if r := a.Ctl(t, "node", "remove", m.Name); r.Code != 0 {
				return fmt.Errorf("dosctl node remove %s: exit status %d: %s", m.Name, r.Code, r.Stderr)
			}
			return nil
		})
	}
	says := func(m *cluster.Machine, when string, r cluster.Result) {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(r.Stderr), "\n")
		if last := lines[len(lines)-1]; r.Code != 1 || !strings.Contains(last, "machine "+m.Name+" was removed") || !strings.Contains(last, "--join") {
			t.Errorf("%s, %s: exit status %d\n%s", m.Name, when, r.Code, r.Stderr)
		}
	}
	says(up, "while it ran", up.Ended(t))
	says(down, "started again", down.Refused(t))
	for _, m := range []*cluster.Machine{up, down} {
		began := time.Now()
		says(m, "once more", m.Refused(t))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s took %v to say that it was removed", m.Name, took)
		}
	}
	// What a machine shows of the others is a second old.
	cluster.Await(t, statusAge, func() error {
		if r := a.Ctl(t, "node", "list"); r.Code != 0 || strings.Count(r.Stdout, "\n") != 3 {
			return fmt.Errorf("exit status %d, want two machines\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
}
