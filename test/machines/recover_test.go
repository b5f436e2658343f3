package machines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestRecover loses two of three machines with all that they had. The third is
// told to go on alone: everything is there, and the two join again under their
// names.
func TestRecover(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.Three(t, cluster.FoundedLocal, "1+2") // all of it is on each
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	m.Stop(t)
	c.AwaitHealth(t, "ok", repairLimit)
	last := c.Machines[2]
	lost := []*cluster.Machine{c.Machines[0], c.Machines[1]}
	for _, gone := range lost {
		gone.Kill(t)
		if err := os.RemoveAll(gone.Data); err != nil {
			t.Fatal(err)
		}
	}
	last.Stop(t)

	recover := func(data string, flags ...string) cluster.Result {
		return cluster.Run(t, cluster.Bin("dosctl"), append([]string{"--data", data, "recover"}, flags...)...)
	}
	if r := recover(last.Data); r.Code != 1 || !strings.Contains(r.Stdout, "those with a vote were a, b, c") || !strings.Contains(r.Stderr, "--yes") {
		t.Fatalf("dosctl recover: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := recover(last.Data, "--yes"); r.Code != 0 {
		t.Fatalf("dosctl recover --yes: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	c.Machines = []*cluster.Machine{last}
	last.Again(t)
	c.AwaitMembers(t, 1, repairLimit)
	m.Again(t)
	files.Check(t, "two of three are gone for good")
	if r := recover(last.Data); r.Code != 1 || !strings.Contains(r.Stderr, "in use") {
		t.Errorf("dosctl recover where a dosd runs: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}

	for _, gone := range lost {
		if r := c.Ctl(t, "identity", "revoke", gone.Name, "--node"); r.Code != 0 {
			t.Fatalf("dosctl identity revoke: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		c.Join(t, cluster.Spec{Name: gone.Name})
	}
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	files.Add(t, m.Path("more"), 2)
	m.Cold(t)
	files.Check(t, "grown to three again")
	fsck(t, c)
}

// TestRestore loses the metadata of all machines, and nothing else. It is made anew
// on one of them from a dump, and the others get it from there.
func TestRestore(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	m.Stop(t)
	c.AwaitHealth(t, "ok", repairLimit)
	leader := c.Leader(t)
	dump := filepath.Join(cluster.Dir(t), "meta.dump")
	if r := leader.Ctl(t, "dump", dump); r.Code != 0 {
		t.Fatalf("dosctl dump: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, machine := range c.Machines {
		machine.Kill(t)
		if err := os.RemoveAll(filepath.Join(machine.Data, "meta")); err != nil {
			t.Fatal(err)
		}
	}
	one := c.Machines[1]
	for _, code := range []int{0, 1} { // nothing is overwritten
		if r := cluster.Run(t, cluster.Bin("dosctl"), "--data", one.Data, "restore", dump); r.Code != code {
			t.Fatalf("dosctl restore: exit status %d, want %d\n%s%s", r.Code, code, r.Stdout, r.Stderr)
		}
	}
	one.Again(t)
	c.Machines[0].Again(t)
	c.Machines[2].Again(t)
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	m.Again(t)
	files.Check(t, "all metadata was lost, and made anew")
	files.Add(t, m.Path("more"), 2)
	fsck(t, c)
}
