package machines

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestStorm breaks two of eight machines at a time, in all the ways that there
// are, under loads on two mounts that check what they read. As long as four
// shards of each stripe and two of the three metadata members can be reached,
// no mount notices.
func TestStorm(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "fio")
	rounds := 2
	if *long {
		rounds = 8
	}
	rnd := random(t)
	c := cluster.Founded(t, "4+2", cluster.Spec{Roles: "meta,chunk"})
	for i := range 7 {
		roles := "meta,chunk"
		if i >= 2 {
			roles = "chunk"
		}
		c.Join(t, cluster.Spec{Roles: roles})
	}
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	mounts := []*cluster.Mount{c.Mount(t), c.Mount(t)}
	load := startVerify(t, mounts[0].Path("load"), 2)
	defer load.end(t)
	var writers []*witness.Writer
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, m := range mounts {
		w := witness.NewWriter(t, m.Path(fmt.Sprint("w", i)), rnd)
		writers = append(writers, w)
		wg.Go(func() { work(w, stop) })
	}
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()

	for round := range rounds {
		voter := c.Machines[rnd.IntN(3)]
		other := c.Machines[3+rnd.IntN(5)]
		first, second := faults[(2*round)%len(faults)], faults[(2*round+1)%len(faults)]
		when := fmt.Sprintf("round %d: %s of %s and %s of %s", round, first.name, voter.Name, second.name, other.Name)
		began := time.Now()
		undo1 := first.do(t, voter)
		undo2 := second.do(t, other)
		load.runs(t, when)
		if left := faultTime - time.Since(began); left > 0 {
			time.Sleep(left) // that is how long the fault lasts
		}
		undo1()
		undo2()
		load.runs(t, when+", repaired")
		for i, w := range writers {
			if w.Err() != nil {
				t.Fatalf("%s: writer %d: %v", when, i, w.Err())
			}
		}
		began = time.Now()
		awaitRedundancy(t, c)
		t.Logf("%s: whole again after %.1f s", when, time.Since(began).Seconds())
	}
	load.end(t)
	end()
	c.AwaitHealth(t, "ok", repairLimit)
	cluster.DropCaches(t)
	for i, w := range writers {
		if w.Err() != nil {
			t.Errorf("writer %d: %v", i, w.Err())
		}
		w.Verify(t, "at the end")
	}
	fsck(t, c)
}

// faultTime is how long a machine is away.
const faultTime = 20 * time.Second

// faults are what can happen to a machine, and what ends it.
var faults = []struct {
	name string
	do   func(testing.TB, *cluster.Machine) (undo func())
}{
	{"kill", func(tb testing.TB, m *cluster.Machine) func() {
		m.Kill(tb)
		return func() { m.Again(tb) }
	}},
	{"pause", func(tb testing.TB, m *cluster.Machine) func() {
		m.Pause(tb)
		return func() { m.Resume(tb) }
	}},
	{"cut", func(tb testing.TB, m *cluster.Machine) func() {
		m.Cut(tb)
		return func() { m.Heal(tb) }
	}},
	{"wipe", func(tb testing.TB, m *cluster.Machine) func() {
		m.Wipe(tb)
		return func() {}
	}},
}

// awaitRedundancy waits until no stripe lacks a shard, and all machines are there.
func awaitRedundancy(tb testing.TB, c *cluster.Cluster) {
	tb.Helper()
	awaitStores(tb, c, len(c.Machines))
	cluster.Await(tb, repairLimit, func() error {
		s, err := c.Status(tb)
		if err != nil {
			return err
		}
		for _, key := range []string{"stripes.degraded", "stripes.endangered", "stripes.lost", "stores.rebuilding"} {
			if s[key] != "0" {
				return fmt.Errorf("%s is %s", key, s[key])
			}
		}
		return nil
	})
}

// TestTooMany takes more machines away than can be done without. What needs
// them waits, not for ever, fails with a reason, and works again when they are
// back, without remounting.
func TestTooMany(t *testing.T) {
	cluster.NeedFuse(t)
	c := three(t, cluster.FoundedLocal, "2+1")
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	cluster.DropCaches(t)
	for _, machine := range c.Machines[1:] {
		machine.Kill(t)
	}
	ops := map[string]func() error{
		"mkdir":       func() error { return os.Mkdir(m.Path("dir"), 0o755) },
		"synced file": func() error { return witness.WriteSynced(m.Path("new"), witness.Bytes(1, 1<<20)) },
		"read":        func() error { _, err := os.ReadFile(m.Path("files", "f4194304")); return err },
		"stat":        func() error { _, err := os.Stat(m.Path("files", "none")); return err },
	}
	var wg sync.WaitGroup
	for name, op := range ops {
		wg.Go(func() {
			began := time.Now()
			err := op()
			took := time.Since(began)
			t.Logf("%s without a majority: %v after %.1f s", name, err, took.Seconds())
			if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EHOSTDOWN) && !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("%s without a majority: %v, want EIO, EHOSTDOWN or ETIMEDOUT", name, err)
			}
			if took > errorLimit+errorSlack {
				t.Errorf("%s without a majority: took %v, want at most %v", name, took, errorLimit)
			}
		})
	}
	wg.Wait()
	for _, machine := range c.Machines[1:] {
		machine.Again(t)
	}
	files.Check(t, "the machines are back")
	if err := os.Mkdir(m.Path("again"), 0o755); err != nil {
		t.Errorf("the machines are back: %v", err)
	}
	files.Add(t, m.Path("more"), 2)
	c.AwaitHealth(t, "ok", repairLimit)
	cluster.DropCaches(t)
	files.Check(t, "at the end")
	fsck(t, c)
}

const (
	// errorLimit is what the design allows an operation that cannot succeed.
	errorLimit = 30 * time.Second
	// errorSlack is for a machine that is busy with other tests.
	errorSlack = 5 * time.Second
)
