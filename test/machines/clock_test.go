package machines

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestClocks has three machines and two mounts whose clocks are ten minutes apart
// from each other. They join, each of them leads, and no writer notices.
func TestClocks(t *testing.T) {
	if !*long {
		t.Skip("commands with other clocks are built for it; run it with -long")
	}
	cluster.NeedFuse(t)
	rnd := witness.Random(t)
	clock := cluster.Clocks(t)
	fast, slow := clock(10*time.Minute), clock(-10*time.Minute)
	c := cluster.FoundedLocal(t, "2+1", cluster.Spec{Clock: fast})
	c.Join(t, cluster.Spec{Clock: slow})
	c.Join(t, cluster.Spec{})
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	var writers []*witness.Writer
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, m := range []*cluster.Mount{c.MountBy(t, slow), c.MountBy(t, fast)} {
		written(t, m, time.Duration(2*i-1)*10*time.Minute)
		writers = append(writers, witness.NewWriter(t, m.Path(fmt.Sprint("w", i)), rnd))
	}
	for _, w := range writers {
		wg.Go(func() { work(w, stop) })
	}
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()

	// Who is killed does not lead next, so after some rounds each has.
	led := make(map[string]int)
	const rounds = 12
	for round := 0; len(led) < 3 && round < rounds; round++ {
		leader := c.Leader(t)
		led[leader.Name]++
		// Longer than a session lives, and than what nobody names is kept.
		time.Sleep(70 * time.Second)
		leader.Kill(t)
		leader.Again(t)
		c.AwaitMembers(t, 3, repairLimit)
		c.AwaitHealth(t, "ok", repairLimit)
		for i, w := range writers {
			if w.Err() != nil {
				t.Fatalf("round %d, %s led: writer %d: %v", round, leader.Name, i, w.Err())
			}
		}
	}
	t.Logf("so often led: %v", led)
	if len(led) < 3 {
		t.Errorf("in %d rounds only %v led", rounds, led)
	}
	end()
	for i, w := range writers {
		if w.Err() != nil {
			t.Errorf("writer %d: %v", i, w.Err())
		}
		w.Verify(t, "at the end")
	}
	d := c.Join(t, cluster.Spec{Clock: slow})
	awaitRedundancy(t, c, 4)
	c.AwaitHealth(t, "ok", repairLimit)
	if r := d.Ctl(t, "node", "list"); r.Code != 0 {
		t.Errorf("dosctl node list: exit status %d\n%s", r.Code, r.Stderr)
	}
	fsck(t, c)
}

// written checks that a file is written at the time that a mount's clock shows.
func written(t *testing.T, m *cluster.Mount, fast time.Duration) {
	t.Helper()
	if err := witness.WriteSynced(m.Path("clock"), []byte("tick")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(m.Path("clock"))
	if err != nil {
		t.Fatal(err)
	}
	if is := time.Until(info.ModTime()); (is - fast).Abs() > time.Minute {
		t.Fatalf("a clock is fast by %v and should be by %v", is, fast)
	}
}
