package machines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestOneMachine founds a cluster of one machine and mounts it: what was written
// is there after its crash and its clean stop, and the mount waits meanwhile.
func TestOneMachine(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.FoundedLocal(t, "2+1", cluster.Spec{Flags: threeDisks(t)})
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	one := c.Machines[0]
	one.Kill(t)
	one.Again(t)
	files.Check(t, "after a crash")
	m.Cold(t)
	files.Check(t, "mounted again")
	one.Stop(t)
	one.Again(t)
	cluster.DropCaches(t)
	files.Check(t, "after a stop")
	c.AwaitHealth(t, "ok", repairLimit)
}

// TestKillAgain kills a mount and a machine and starts each in the same moment,
// while the one before still lets go of what it had.
func TestKillAgain(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.FoundedLocal(t, "2+1", cluster.Spec{Flags: threeDisks(t)})
	m := c.Mount(t)
	for i := range 8 {
		// Memory and open connections take time to give back.
		if err := os.WriteFile(m.Path(fmt.Sprint("f", i)), make([]byte, 64<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		m.KillAgain(t)
		c.Machines[0].KillAgain(t)
	}
}

// threeDisks are the flags of a machine that has three stores.
func threeDisks(tb testing.TB) []string {
	dir := cluster.Dir(tb)
	return []string{"--disk", dir + "/0", "--disk", dir + "/1", "--disk", dir + "/2"}
}

// TestThreeMachines is what a new user would do: three machines, a mount, real
// programs. All daemons are killed at once and started again under the mount,
// which only waits.
func TestThreeMachines(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "tar", "rsync", "git")
	c := cluster.Three(t, cluster.Founded, "2+1")
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	src, err := filepath.Abs("../../chunk")
	if err != nil {
		t.Fatal(err)
	}
	sh := func(dir, script string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-ec", script, "sh", src)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	sh(m.Point, `mkdir tar && tar -C "$1" -cf - . | tar -C tar -xf - && diff -r "$1" tar`)
	sh(m.Point, `rsync -a "$1/" rsync/ && diff -r "$1" rsync`)
	sh(m.Point, `mkdir git && cd git && cp -r "$1" chunk && git init -q . && git add . &&
		git -c user.name=a -c user.email=a@b commit -qm one && git fsck --strict 2>&1`)
	sh(m.Point, `sync -f . ; find . -path ./nodes -prune -o -path ./cluster -prune -o -type f -exec sync {} +`)

	for _, machine := range c.Machines {
		machine.Kill(t)
	}
	cluster.DropCaches(t)
	read := make(chan error, 1)
	go func() { _, err := os.ReadFile(m.Path("files", "f1048576")); read <- err }()
	c.Restart(t)
	if err := <-read; err != nil {
		t.Errorf("reading while all machines were down: %v", err)
	}
	files.Check(t, "all daemons were killed")
	sh(m.Point, `diff -r "$1" tar; diff -r "$1" rsync; cd git; git fsck --strict 2>&1; git status --porcelain | (! grep .)`)
	c.AwaitHealth(t, "ok", repairLimit)
	m.Stop(t)
	fsck(t, c)
}
