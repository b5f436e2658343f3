package disk

import (
	"errors"
	"fmt"
	"testing"

	"dos/chunk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

// A deleted shard stays deleted when the segment with its tombstone is
// compacted, at whatever stage its record is then, also if all that is left
// after a power cut are the segments, or an old checkpoint.
func TestTombstonesOutliveWhatTheyKill(t *testing.T) {
	for _, punched := range []bool{false, true} {
		for _, scanned := range []bool{false, true} {
			t.Run(fmt.Sprintf("punched=%t,scanned=%t", punched, scanned), func(t *testing.T) {
				fsys := new(disk.Mem)
				power := &disk.Faulty{FS: fsys}
				c := testConfig(power)
				c.Segment = 64 << 10
				c.Compact = 1 << 40
				s := withoutSweeper(t, c)
				shard := func(i int) chunk.ID { return chunk.ID{Stripe: chunk.StripeID(i)} }
				for i := range 4 { // segment 1: shard 0 and some that stay
					must(t, s.Put(t.Context(), shard(i), storetest.Data(shard(i), 12<<10)))
				}
				must(t, s.checkpoint())
				must(t, s.Delete(t.Context(), shard(0))) // still segment 1, or 2
				for s.active.number == 1 {
					must(t, s.Delete(t.Context(), shard(0)))
					must(t, s.Put(t.Context(), shard(0), []byte("again")))
				}
				must(t, s.Delete(t.Context(), shard(0)))
				victim := s.active
				for i := 10; s.active == victim; i++ {
					must(t, s.Put(t.Context(), shard(i), storetest.Data(shard(i), 12<<10)))
					must(t, s.Delete(t.Context(), shard(i)))
				}
				if punched {
					s.punchAll()
				}
				must(t, s.compact(victim))
				if s.segments[victim.number] != nil {
					t.Fatal("the segment with the tombstone is still there")
				}
				power.Die()
				fsys.Crash(nil)
				_ = s.Close()
				if scanned {
					must(t, fsys.Remove(testDir+"/"+checkpointName))
				}
				c.FS = fsys
				s = reopen(t, testDir, c)
				for i := range 40 {
					_, err := s.Stat(t.Context(), shard(i))
					if stays := i >= 1 && i < 4; stays && err != nil || !stays && !errors.Is(err, chunk.ErrNotExist) {
						t.Errorf("Stat(%v) = %v, should be there: %t", shard(i), err, stays)
					}
				}
			})
		}
	}
}

// withoutSweeper makes a store that is tidied up only by the test.
func withoutSweeper(t *testing.T, c Config) *Store {
	t.Helper()
	c, err := c.withDefaults()
	must(t, err)
	_, err = Create(testDir, c)
	must(t, err)
	lock, err := c.FS.Lock(testDir)
	must(t, err)
	s, err := open(testDir, c, lock)
	must(t, err)
	s.loops.Go(s.commitLoop)
	return s
}
