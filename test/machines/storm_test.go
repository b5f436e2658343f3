package machines

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestStorm breaks two of eleven machines at a time, three with metadata and
// eight with stores, in all the ways that there are, under loads on two mounts
// that check what they read. As long as four shards of each stripe and two of the
// three metadata members can be reached, no mount notices.
func TestStorm(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "fio")
	rounds := 2
	if *long {
		rounds = 16
	}
	rnd := witness.Random(t)
	c := cluster.Founded(t, "4+2", cluster.Spec{Roles: "meta"})
	for i := range 10 {
		roles := "meta"
		if i >= 2 {
			roles = "chunk"
		}
		c.Join(t, cluster.Spec{Roles: roles})
	}
	voters, servers := c.Machines[:3], c.Machines[3:]
	c.AwaitMembers(t, len(voters), repairLimit)
	awaitStores(t, c, len(servers))
	c.AwaitHealth(t, "ok", repairLimit)
	mounts := []*cluster.Mount{c.Mount(t), c.Mount(t)}
	loads := []*load{startVerify(t, mounts[0].Path("verify"), 2), startTrees(t, mounts[1].Path("trees"))}
	endLoads := func() {
		for _, l := range loads {
			l.end(t)
		}
	}
	defer endLoads()
	run := func(when string) {
		t.Helper()
		for _, l := range loads {
			l.runs(t, when)
		}
	}
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

	// In each other round one of the two has metadata, which has no store to lose.
	firsts := shuffled(rnd, outages)
	seconds := append([]fault{wipe}, shuffled(rnd, outages)...)
	for round := range rounds {
		pair := rnd.Perm(len(servers))
		one, other := servers[pair[0]], servers[pair[1]]
		if round%2 == 0 {
			one = voters[rnd.IntN(len(voters))]
		}
		first, second := firsts[round%len(firsts)], seconds[round%len(seconds)]
		when := fmt.Sprintf("round %d: %s of %s and %s of %s", round, first.name, one.Name, second.name, other.Name)
		began := time.Now()
		undo1 := first.do(t, one)
		undo2 := second.do(t, other)
		run(when)
		served := time.Since(began)
		if left := faultTime - served; left > 0 {
			time.Sleep(left) // that is how long the fault lasts
		}
		undo1()
		undo2()
		run(when + ", repaired")
		for i, w := range writers {
			if w.Err() != nil {
				t.Fatalf("%s: writer %d: %v", when, i, w.Err())
			}
		}
		began = time.Now()
		c.AwaitMembers(t, len(voters), repairLimit)
		awaitRedundancy(t, c, len(servers))
		t.Logf("%s: the loads had done a round after %.1f s; whole again after %.1f s", when, served.Seconds(), time.Since(began).Seconds())
	}
	endLoads()
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

func shuffled[T any](rnd *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// faultTime is how long a machine is away.
const faultTime = 20 * time.Second

// A fault is what can happen to a machine, and what ends it.
type fault struct {
	name string
	do   func(testing.TB, *cluster.Machine) (undo func())
}

var outages = []fault{
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
}

var wipe = fault{"wipe", func(tb testing.TB, m *cluster.Machine) func() {
	m.Wipe(tb)
	return func() {}
}}

// awaitRedundancy waits until n stores are there and no stripe lacks a shard.
func awaitRedundancy(tb testing.TB, c *cluster.Cluster, n int) {
	tb.Helper()
	awaitStores(tb, c, n)
	cluster.Await(tb, repairLimit, func() error {
		s, err := c.Status(tb)
		if err != nil {
			return err
		}
		for _, key := range []string{"stripes.short", "stripes.degraded", "stripes.endangered", "stripes.lost", "stores.rebuilding"} {
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
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
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
