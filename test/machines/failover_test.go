package machines

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// failoverLimit is what the median time may be from the death of the machine in
// charge until a write that begins afterwards is on disk.
const failoverLimit = 3 * time.Second

// TestFailover kills the machine in charge again and again under writers that
// sync. They only wait.
func TestFailover(t *testing.T) {
	cluster.NeedFuse(t)
	rounds := 3
	if *long {
		rounds = 10
	}
	rnd := witness.Random(t)
	c := cluster.Three(t, cluster.Founded, "2+1")
	m := c.Mount(t)
	var writers []*witness.Writer
	for i := range 3 {
		writers = append(writers, witness.NewWriter(t, m.Path(fmt.Sprint("w", i)), rnd))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() { work(w, stop) })
	}
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()

	var gaps []float64 // in seconds
	for round := range rounds {
		leader := c.Leader(t)
		leader.Kill(t)
		began := time.Now()
		if err := witness.WriteSynced(m.Path(fmt.Sprint("round", round)), witness.Bytes(uint64(round), 100_000)); err != nil {
			t.Fatalf("round %d: writing after the leader was killed: %v", round, err)
		}
		gaps = append(gaps, time.Since(began).Seconds())
		leader.Again(t)
		c.AwaitMembers(t, 3, repairLimit)
		awaitStores(t, c, 3)
		for i, w := range writers {
			if w.Err() != nil {
				t.Fatalf("round %d: writer %d: %v", round, i, w.Err())
			}
		}
	}
	end()
	for i, w := range writers {
		if w.Err() != nil {
			t.Errorf("writer %d: %v", i, w.Err())
		}
	}
	t.Logf("writes went on after %.1f", gaps)
	slices.Sort(gaps)
	// Three are too few to say more than that they ended.
	if median := gaps[len(gaps)/2]; *long && median > failoverLimit.Seconds() {
		t.Errorf("writes went on after %.1f s (median), want at most %v", median, failoverLimit)
	}
	m.Cold(t)
	for _, w := range writers {
		w.Verify(t, "mounted again")
	}
	for round := range rounds {
		path := m.Path(fmt.Sprint("round", round))
		if got, err := os.ReadFile(path); err != nil || !slices.Equal(got, witness.Bytes(uint64(round), 100_000)) {
			t.Errorf("%s: got %d bytes, %v", path, len(got), err)
		}
	}
	c.AwaitHealth(t, "ok", repairLimit)
	fsck(t, c)
}

// work has a writer write until it is to stop or something fails.
func work(w *witness.Writer, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if w.Step() != nil {
			return
		}
	}
}

// awaitStores waits until n stores are up.
func awaitStores(tb testing.TB, c *cluster.Cluster, n int) {
	tb.Helper()
	cluster.Await(tb, repairLimit, func() error {
		s, err := c.Status(tb)
		if err == nil && s["stores.up"] != fmt.Sprint(n) {
			err = errors.New(s["stores.up"] + " stores are up")
		}
		return err
	})
}

// fsck checks the whole cluster: it finds nothing.
func fsck(tb testing.TB, c *cluster.Cluster) {
	tb.Helper()
	if r := c.Ctl(tb, "fsck", "--verify"); r.Code != 0 {
		tb.Errorf("dosctl fsck: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
