package services

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

const (
	// memoryShare is how many messages are pushed in a round at least.
	memoryShare = 500
	// homeLimit bounds how long it takes until two machines hold a queue again, on a
	// busy machine.
	homeLimit = time.Minute
)

// TestMemory has programs on three mounts use a queue in memory while one after the
// other of the machines that hold it is killed, hangs and is cut off. What was
// acknowledged stays, as in a durable queue. Then all are killed: that is lost, and said.
func TestMemory(t *testing.T) {
	rnd := witness.Random(t)
	c := three(t)
	began := time.Now()
	var sites []*site
	for _, name := range []string{"x", "y", "z"} {
		sites = append(sites, &site{Mount: c.Mount(t), name: name, began: began})
	}
	dir := sites[0].Path("queues", "fast")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/ctl", fmt.Appendf(nil, "durable memory\nmax %d\nattempts 0\n", queueMax), 0); err != nil {
		t.Fatal(err)
	}
	qs := queues{name: "fast"}
	pushing := &service{name: "pushing", step: qs.push}
	consuming := &service{name: "consuming", step: qs.consume}
	var pushers, consumers sync.WaitGroup
	dry, over := make(chan struct{}), make(chan struct{})
	for id, s := range sites {
		w := newWorker(t, id, s, rnd)
		pushers.Go(func() { w.run(pushing, dry) })
	}
	for id := range workers * len(sites) {
		w := newWorker(t, id, sites[id%len(sites)], rnd)
		consumers.Go(func() { w.run(consuming, over) })
	}
	endPushing := sync.OnceFunc(func() { close(dry); pushers.Wait() })
	endAll := sync.OnceFunc(func() { endPushing(); close(over); consumers.Wait() })
	defer endAll()

	for i, f := range memoryFaults(rnd) {
		home := awaitHome(t, sites[0], "fast")
		pushing.left.Store(memoryShare)
		at := time.Now()
		f.do(t, c, machine(t, c, home[f.whom]))
		awaitAll([]*service{pushing})
		t.Logf("round %d, the %s %s: %.1f s, of %v", i, []string{"primary", "backup"}[f.whom], f.name, time.Since(at).Seconds(), home)
		c.AwaitWhole(t, wholeLimit)
	}
	endPushing()
	awaitDrained(t, sites[0], "fast")
	endAll()
	if text := status(t, sites[1], "fast"); value(text, "lost") != "0" {
		t.Errorf("never were both away, and the status says\n%s", text)
	}
	t.Logf("%d messages pushed", pushing.total.Load())
	if n := pushing.total.Load(); n < memoryShare {
		t.Errorf("%d messages are too few to tell of", n)
	}
	qs.check(t)

	awaitHome(t, sites[0], "fast")
	if got := sh(t, sites[0], "seq 3 >queues/fast/push"); got != "" {
		t.Fatal(got)
	}
	for _, m := range c.Machines {
		m.Kill(t)
	}
	c.Restart(t)
	cluster.Await(t, homeLimit, func() error {
		if text := status(t, sites[2], "fast"); value(text, "lost") == "0" || value(text, "depth") != "0" {
			return fmt.Errorf("all machines were killed, and the status says\n%s", text)
		}
		return nil
	})
	if got := sh(t, sites[1], "echo again >queues/fast/push; cat queues/fast/pop"); got != "again\n" {
		t.Errorf("afterwards: %q", got)
	}
}

// A memoryFault is one that a machine has which holds the queue.
type memoryFault struct {
	name string
	whom int // 0: the primary
	do   func(t *testing.T, c *cluster.Cluster, m *cluster.Machine)
}

func memoryFaults(rnd *rand.Rand) (list []memoryFault) {
	n := 1
	if *long {
		n = 6
	}
	for range n {
		for whom := range 2 {
			list = append(list,
				memoryFault{"killed", whom, func(t *testing.T, _ *cluster.Cluster, m *cluster.Machine) {
					m.Kill(t)
					time.Sleep(shortly) // that is how long it is away
					m.Again(t)
				}},
				memoryFault{"cut off", whom, func(t *testing.T, _ *cluster.Cluster, m *cluster.Machine) {
					m.Cut(t)
					time.Sleep(cutTime)
					m.Heal(t)
				}},
				memoryFault{"stopped", whom, func(t *testing.T, _ *cluster.Cluster, m *cluster.Machine) {
					m.Pause(t)
					time.Sleep(cutTime)
					m.Resume(t)
				}})
		}
	}
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func status(t *testing.T, s *site, queue string) string {
	text, err := os.ReadFile(s.Path("queues", queue, "status"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// awaitHome waits until two machines hold a queue, and returns them.
func awaitHome(t *testing.T, s *site, queue string) []string {
	t.Helper()
	var home []string
	cluster.Await(t, homeLimit, func() error {
		text := status(t, s, queue)
		for line := range strings.Lines(text) {
			if words := strings.Fields(line); words[0] == "home" && !slices.Contains(words, "-") {
				home = words[1:3]
				return nil
			}
		}
		return fmt.Errorf("two machines are to hold the queue, and the status says\n%s", text)
	})
	return home
}

func machine(t *testing.T, c *cluster.Cluster, name string) *cluster.Machine {
	t.Helper()
	for _, m := range c.Machines {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("there is no machine %s", name)
	return nil
}
