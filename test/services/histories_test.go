package services

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestServices has programs on three mounts of a cluster use locks, values and queues.
func TestServices(t *testing.T) {
	rnd := witness.Random(t)
	c := three(t)
	began := time.Now()
	var sites []*site
	for _, name := range []string{"x", "y", "z"} {
		sites = append(sites, &site{Mount: c.Mount(t), name: name, began: began})
	}
	t.Run("killed", func(t *testing.T) { killed(t, sites, rnd) })
	t.Run("stopped", func(t *testing.T) { stopped(t, sites) })
	t.Run("order", func(t *testing.T) { order(t, c, sites) })
	if *long {
		t.Run("calls", func(t *testing.T) { calls(t, c, sites, rnd) })
	}
	t.Run("histories", func(t *testing.T) { histories(t, c, sites, rnd) })
}

// histories has many programs work through rounds of faults.
func histories(t *testing.T, c *cluster.Cluster, sites []*site, rnd *rand.Rand) {
	began := time.Now()
	for _, dir := range []string{"kv/t", "kv/fenced", "kv/once", "queues/work", "queues/once"} {
		if err := os.Mkdir(sites[0].Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []string{"work", "once"} {
		if err := os.WriteFile(sites[0].Path("queues", q, "ctl"), fmt.Appendf(nil, "max %d\nattempts 0\n", queueMax), 0); err != nil {
			t.Fatal(err)
		}
	}
	var ls locks
	var vs values
	qs := queues{name: "work"}
	ex := newOnce()
	sources := []*service{{name: "pushing", share: 1500, step: qs.push}, {name: "sending", share: 300, step: ex.send}}
	services := []*service{
		{name: "locks", share: 4000, step: ls.step},
		{name: "values", share: 4000, step: vs.step},
		{name: "consuming", share: 0, step: qs.consume},
		{name: "counting", share: 0, step: func(w *worker) int { return ex.count(w, &qs) }},
	}
	all := append(sources, services...)
	var sourcing, working sync.WaitGroup
	dry, over := make(chan struct{}), make(chan struct{})
	start := func(wg *sync.WaitGroup, s *service, n int, over <-chan struct{}) {
		for id := range n * len(sites) {
			w := newWorker(t, id, sites[id%len(sites)], rnd)
			wg.Go(func() { w.run(s, over) })
		}
	}
	for _, s := range sources {
		start(&sourcing, s, 1, dry)
	}
	for _, s := range services {
		start(&working, s, workers, over)
	}
	endSources := sync.OnceFunc(func() { close(dry); sourcing.Wait() })
	endAll := sync.OnceFunc(func() { endSources(); close(over); working.Wait() })
	defer endAll() // who pushes may wait for who consumes

	for i, f := range rounds(rnd) {
		for _, s := range all {
			s.left.Store(int64(s.share))
		}
		at := time.Now()
		f.do(t, c, sites, rnd)
		lasted := time.Since(at)
		awaitAll(all)
		t.Logf("round %d, %s: %.1f s, and all was done after %.1f s", i, f.name, lasted.Seconds(), time.Since(at).Seconds())
		c.AwaitWhole(t, wholeLimit)
	}
	endSources()
	awaitDrained(t, sites[0], "work", "once")
	endAll()
	n := int64(0)
	for _, s := range all {
		t.Logf("%s: %d operations", s.name, s.total.Load())
		n += s.total.Load()
	}
	t.Logf("%d operations in %.1f s", n, time.Since(began).Seconds())
	if n < fewest {
		t.Errorf("%d operations are too few to tell of, want %d", n, fewest)
	}
	checking := time.Now()
	ls.Check(t, lockModel)
	vs.check(t)
	qs.check(t)
	ex.check(t, sites[0])
	t.Logf("checked in %.1f s", time.Since(checking).Seconds())
}

// awaitAll waits until all have done their share of a round, or, on a busy machine, a
// part of it.
func awaitAll(list []*service) {
	poll := time.NewTicker(pace)
	defer poll.Stop()
	for end := time.Now().Add(workTime); time.Now().Before(end); <-poll.C {
		if !slices.ContainsFunc(list, func(s *service) bool { return s.left.Load() > 0 }) {
			return
		}
	}
}

// awaitDrained waits until all messages of the queues are settled.
func awaitDrained(t *testing.T, s *site, queues ...string) {
	t.Helper()
	for _, q := range queues {
		cluster.Await(t, drainLimit, func() error {
			text, err := os.ReadFile(s.Path("queues", q, "status"))
			if err != nil {
				return err
			}
			for _, key := range []string{"depth", "inflight", "dead"} {
				if v := value(string(text), key); v != "0" {
					return fmt.Errorf("queue %s: %s %s", q, key, v)
				}
			}
			return nil
		})
	}
}
