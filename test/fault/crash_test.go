package fault

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestCrash kills dosmount again and again while writers work. What a writer
// was told is synced must be there; what was under way is either done or not.
func TestCrash(t *testing.T) {
	cluster.NeedFuse(t)
	rounds := 4
	if *long {
		rounds = 10
	}
	rnd := witness.Random(t)
	data := cluster.Dir(t) + "/data"
	m := cluster.Start(t, data)
	const writers = 4
	var all [writers]*witness.Writer
	for i := range all {
		all[i] = witness.NewWriter(t, m.Path(fmt.Sprint("w", i)), rnd)
	}
	for round := range rounds {
		var acked atomic.Int64
		enough, limit := make(chan struct{}), int64(30+rnd.IntN(150))
		var once sync.Once
		var wg sync.WaitGroup
		for _, w := range all {
			wg.Go(func() {
				for w.Step() == nil {
					if acked.Add(1) >= limit {
						once.Do(func() { close(enough) })
					}
				}
				once.Do(func() { close(enough) }) // nobody is to wait for a writer that ended
			})
		}
		<-enough
		m.Kill(t) // and the dead mount stays
		wg.Wait()
		if n := acked.Load(); n < limit {
			t.Fatalf("round %d: a writer failed by itself after %d operations: %v", round, n, all[0].Err())
		}
		m.Again(t)
		for _, w := range all {
			w.Verify(t, fmt.Sprint("round ", round))
		}
		walk(t, m.Point)
		t.Logf("round %d: killed after %d acknowledged operations", round, acked.Load())
		if t.Failed() {
			return
		}
	}
	m.AwaitHealth(t, "ok", repairLimit)
	m.Cold(t)
	for _, w := range all {
		w.Verify(t, "at the end")
	}
	m.Stop(t)
	fsck(t, data)
}
