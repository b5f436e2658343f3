package repair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/stripe/stripetest"
)

// A ruled cluster has stores that leave, and placement groups: each row has all
// stores that do not, from another one on.
type ruled struct {
	*stripetest.Cluster
	rotates bool // else the groups are those of Cluster

	mu      sync.Mutex
	epoch   uint64                 // guarded by mu
	leaving map[chunk.StoreID]bool // and whether it is out; guarded by mu
	rows    []chunk.Group          // guarded by mu
}

func (c *ruled) Leaving(id chunk.StoreID) (leaving, out bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, leaving = c.leaving[id]
	return leaving, out
}

// leave says that a store leaves, and whether it is out.
func (c *ruled) leave(id chunk.StoreID, out bool) { c.change(func() { c.leaving[id] = out }) }

// stay says that it does not.
func (c *ruled) stay(id chunk.StoreID) { c.change(func() { delete(c.leaving, id) }) }

func (c *ruled) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving == nil {
		c.leaving = make(map[chunk.StoreID]bool)
	}
	f()
	c.epoch++
	c.rows = nil
}

func (c *ruled) Group(id chunk.StripeID) chunk.Group {
	if !c.rotates {
		return c.Cluster.Group(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows == nil {
		var members []chunk.StoreID
		for _, store := range c.Stores() {
			if _, leaves := c.leaving[store]; !leaves {
				members = append(members, store)
			}
		}
		for range members {
			members = slices.Concat(members[1:], members[:1])
			c.rows = append(c.rows, chunk.Group{Epoch: c.epoch, Members: members[:min(len(members), wanted.Shards()+2)]})
		}
	}
	return c.rows[chunk.GroupOf(id)%len(c.rows)]
}

// runRuled runs f with the Repairer obeying the cluster's rules.
func runRuled(t *testing.T, n int, f func(b *bench)) {
	t.Helper()
	rules := func(c *ruled) Cluster {
		c.rotates = true
		return c
	}
	runWith(t, n, rules, func(b *bench) {
		b.guard()
		f(b)
	})
}

// guard fails the test when a shard is deleted that the table names.
func (b *bench) guard() {
	for _, store := range b.cluster.Stores() {
		b.cluster.Faulty(store).Deleting(func(id chunk.ID) {
			row, ok := b.table.row(id.Stripe)
			if _, size := b.cluster.Faulty(store), int64(row.Code.Cell(int(row.Len))); ok && !b.table.isDead(id.Stripe) && row.Stores[id.Index] == store && size > 0 {
				b.Errorf("%v: store %d deletes %v, which the table names there: %v", time.Now(), store, id, row.Stores)
			}
		})
	}
}

func (t *table) isDead(id chunk.StripeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, dead := t.dead[id]
	return dead
}

// on counts the shards that the table names on a store.
func (b *bench) on(store chunk.StoreID) (shards, bytes int64) {
	b.table.mu.Lock()
	defer b.table.mu.Unlock()
	for _, row := range b.table.rows {
		if slices.Contains(row.Stores, store) {
			shards++
			bytes += int64(row.Code.Cell(int(row.Len)))
		}
	}
	return shards, bytes
}

// drained reports whether the one store that leaves has nothing left.
func drained(s Status) bool { return len(s.Leaving) == 1 && s.Leaving[0].Shards == 0 }

func (b *bench) untilClean(limit time.Duration) {
	b.Helper()
	b.until(limit, "clean", func(s Status) bool { return s.Complete && s.Moving == 0 && b.excess() == 0 })
	b.checkStored()
	b.checkData()
}

// A store that is drained serves what it has until that lies elsewhere, and says
// how much is left. Redundancy is full all the time, and nothing is computed.
func TestDrain(t *testing.T) {
	runRuled(t, 9, func(b *bench) {
		for range 20 {
			b.write(sizes...)
		}
		b.repair.rate.perSecond = 1 << 20
		defer b.start()()
		b.untilFull()
		time.Sleep(settle)
		shards, bytes := b.on(2)
		reads := b.cluster.Faulty(2).Gets.Load()
		b.cluster.leave(2, false)
		s := b.until(time.Minute, "draining", func(s Status) bool {
			return s.Complete && s.Done > 0 && len(s.Leaving) == 1 && s.Leaving[0].Shards < shards/2
		})
		if l := s.Leaving[0]; l.Store != 2 || l.Shards == 0 || l.Bytes >= bytes || l.Left < time.Second || l.Left > time.Minute || s.Degraded+s.Endangered != 0 {
			b.Errorf("half-way: %+v", s)
		}
		if on, size := b.on(2); s.Leaving[0].Shards < on || s.Leaving[0].Shards > on+2*DefaultWorkers || s.Leaving[0].Bytes < size {
			b.Errorf("half-way the table has %d shards and %d bytes there, and %+v is said", on, size, s.Leaving[0])
		}
		s = b.until(5*time.Minute, "drained", func(s Status) bool { return drained(s) && s.Moving == 0 })
		if on, _ := b.on(2); on != 0 || s.Leaving[0].Bytes != 0 {
			b.Errorf("%d shards are still there: %+v", on, s)
		}
		if n := b.cluster.Faulty(2).Gets.Load() - reads; n != shards {
			b.Errorf("%d reads for %d shards", n, shards)
		}
		b.checkData()
		if n := b.excess(); n < int(shards) {
			b.Errorf("the store has given up shards before it was removed: %d of %d are left", n, shards)
		}
		b.cluster.stay(2)
		b.until(5*time.Minute, "used again", func(s Status) bool { on, _ := b.on(2); return on > 0 && len(s.Leaving) == 0 })
		b.untilClean(10 * time.Minute)
		b.checkHome()
	})
}

// A store that is out is rebuilt elsewhere, and at no time before. When it is
// back it is up to date once that has been seen.
func TestOut(t *testing.T) {
	runRuled(t, 9, func(b *bench) {
		for range 10 {
			b.write(sizes...)
		}
		defer b.start()()
		b.untilFull()
		b.cluster.Faulty(4).Down(true)
		time.Sleep(2 * DefaultGrace)
		if on, _ := b.on(4); on == 0 || b.repair.Status().Complete || b.repair.UpToDate(4) {
			b.Errorf("%d shards are on a store that is away and not out", on)
		}
		b.cluster.leave(4, true)
		b.until(time.Minute, "rebuilt", func(s Status) bool { return s.Complete && drained(s) })
		b.checkData()
		b.cluster.Faulty(4).Down(false)
		b.until(2*time.Minute, "up to date", func(Status) bool { return b.repair.UpToDate(4) })
		b.cluster.stay(4)
		b.untilClean(10 * time.Minute)
		b.checkHome()
	})
}

// What was written to spares, while stores were away for less than the limit, is
// put where the groups want it when they are back.
func TestBackSooner(t *testing.T) {
	runRuled(t, 8, func(b *bench) {
		for range 5 {
			b.write(sizes...)
		}
		defer b.start()()
		b.untilFull()
		b.cluster.Faulty(1).Down(true)
		b.cluster.Faulty(3).Down(true)
		for range 20 {
			b.write(sizes...)
			time.Sleep(time.Second)
		}
		b.cluster.Faulty(1).Down(false)
		b.cluster.Faulty(3).Down(false)
		b.until(10*time.Second, "full", func(s Status) bool { return s.Complete })
		b.untilClean(10 * time.Minute)
		b.checkHome()
	})
}

// A draining store that cannot be read is not needed.
func TestDrainOfABrokenStore(t *testing.T) {
	for name, fault := range map[string]func(b *bench, s *stripetest.Store){
		"fails":    func(b *bench, s *stripetest.Store) { s.Lose(); b.repair.Notify() },
		"hangs":    func(b *bench, s *stripetest.Store) { s.Slow(time.Hour) },
		"corrupts": func(b *bench, s *stripetest.Store) { corruptAll(s) },
	} {
		t.Run(name, func(t *testing.T) {
			runRuled(t, 8, func(b *bench) {
				for range 10 {
					b.write(sizes...)
				}
				defer b.start()()
				b.untilFull()
				time.Sleep(settle)
				b.cluster.leave(2, false)
				fault(b, b.cluster.Faulty(2))
				if name == "hangs" { // it lives, as far as anybody knows: nothing is known of what it has
					time.Sleep(5 * time.Minute)
					b.cluster.leave(2, true)
					b.cluster.Faulty(2).Down(true)
				}
				b.until(5*time.Minute, "drained", func(s Status) bool { return s.Complete && drained(s) })
				b.checkData()
			})
		})
	}
}

func corruptAll(s *stripetest.Store) {
	for _, info := range s.Shards() {
		s.Corrupt(info.ID)
	}
}

// A store that is slow, or hangs and does not even hear that a call has ended,
// holds up nobody.
func TestSlowStoreHoldsUpNobody(t *testing.T) {
	for name, fault := range map[string]func(s *stripetest.Store){
		"slow":  func(s *stripetest.Store) { s.Slow(3 * time.Second) },
		"hangs": func(s *stripetest.Store) { s.Hang(false) },
		"deaf":  func(s *stripetest.Store) { s.Hang(true) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 6, func(b *bench) {
				for range 100 {
					b.write(100_000) // 4+2: each is on all stores
				}
				stop := b.start()
				b.untilFull()
				fault(b.cluster.Faulty(1))
				b.cluster.Faulty(2).Lose()
				b.repair.Notify()
				begun := time.Now()
				b.until(3*time.Minute, "rebuilt", func(s Status) bool { return s.Rebuilt == 100 })
				if took := time.Since(begun); took > time.Minute {
					b.Errorf("100 shards were rebuilt in %v", took)
				}
				b.cluster.Faulty(1).Slow(0)
				b.cluster.Faulty(1).Resume()
				b.until(5*time.Minute, "full", func(s Status) bool { return s.Complete })
				b.checkStored()
				stop()
			})
		})
	}
}

// A list that breaks is taken up again where it broke. One that breaks each time
// is not taken for the whole.
func TestListsBreak(t *testing.T) {
	run(t, 6, func(b *bench) {
		for range 10 {
			b.write(100_000)
		}
		for i := range chunk.StoreID(6) {
			b.cluster.Faulty(i + 1).BreakLists(4)
		}
		defer b.start()()
		if s := b.untilFull(); s.Stripes != 10 || s.Rebuilt != 0 {
			b.Errorf("lists that break twice: %+v", s)
		}
		b.cluster.Faulty(3).BreakLists(1)
		b.repair.Notify()
		time.Sleep(10 * time.Minute)
		if s := b.repair.Status(); s.Complete || s.Rebuilt != 0 {
			b.Errorf("a list that breaks each time: %+v", s)
		}
		b.cluster.Faulty(3).BreakLists(0)
		b.untilFull()
		b.checkStored()
	})
}

// For a moment there are two Repairers, requests arrive late, stores come and go:
// nothing that is named is deleted, and in the end all is where it should be.
func TestTwoRepairers(t *testing.T) {
	const overlap = 10 // seconds; what is under way then ends before the new one moves anything
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			runRuled(t, 10, func(b *bench) {
				r := rand.New(rand.NewPCG(seed, 7))
				stop := b.start()
				for range 12 {
					b.write(1+r.IntN(5000), 65537+r.IntN(100_000), 65537+r.IntN(100_000))
					id := chunk.StoreID(1 + r.IntN(10))
					f := b.cluster.Faulty(id)
					switch r.IntN(5) {
					case 0:
						f.Down(true)
						b.cluster.leave(id, true)
					case 1:
						f.LateDeletes(time.Duration(r.IntN(3000)) * time.Millisecond)
					case 2:
						f.Slow(time.Duration(r.IntN(2000)) * time.Millisecond)
					default:
						b.cluster.leave(id, false)
					}
					b.table.set(func() { b.table.slow = time.Duration(r.IntN(3000)) * time.Millisecond })
					old, before := stop, b.repair
					next, err := New(before.config)
					if err != nil {
						b.Fatal(err)
					}
					b.repair = next
					stop = b.start() // before the one that was in charge has ended
					other := chunk.StoreID(1 + r.IntN(10))
					for i := range r.IntN(90) {
						if i == overlap {
							old()
							old = func() {}
						}
						time.Sleep(time.Second)
						switch { // somebody changes his mind
						case i%5 == 0 && other != id:
							b.cluster.leave(other, false)
						case i%5 == 2+i%3 && other != id:
							b.cluster.stay(other)
						}
						before.Notify()
						next.Notify()
					}
					old()
					b.cluster.stay(other)
					f.Down(false)
					f.Slow(0)
					f.LateDeletes(0)
					b.cluster.stay(id)
					if r.IntN(3) == 0 {
						b.until(10*time.Minute, "full", func(s Status) bool { return s.Complete })
						b.checkData()
					}
				}
				b.untilClean(20 * time.Minute)
				b.checkHome()
				stop()
			})
		})
	}
}

// A Repairer that has just begun moves nothing, and what seems to be too many is
// left alone at first: another may be about to name it.
func TestLeavesAloneAtFirst(t *testing.T) {
	runRuled(t, 8, func(b *bench) {
		b.write(sizes...)
		row, _ := b.table.row(4) // 4+2
		extra := chunk.ID{Stripe: row.ID, Index: 0}
		spare := b.cluster.Group(row.ID).Members[6]
		data := make([]byte, row.Code.Cell(int(row.Len)))
		n, err := b.cluster.Faulty(row.Stores[0]).ReadAt(context.Background(), extra, data, 0)
		if err == nil {
			err = b.cluster.Faulty(spare).Put(context.Background(), extra, data[:n])
		}
		if err != nil {
			b.Fatal(err)
		}
		b.cluster.leave(row.Stores[1], false)
		defer b.start()()
		time.Sleep(settle - 2*time.Second)
		synctest.Wait()
		if len(b.table.moves) != 0 {
			b.Errorf("moved: %v", b.table.moves)
		}
		if _, err := b.cluster.Faulty(spare).Stat(context.Background(), extra); err != nil {
			b.Errorf("a shard that another may be about to name: %v", err)
		}
		b.until(3*time.Minute, "deleted", func(Status) bool {
			_, err := b.cluster.Faulty(spare).Stat(context.Background(), extra)
			return errors.Is(err, chunk.ErrNotExist)
		})
		b.until(time.Minute, "drained", func(s Status) bool { return drained(s) })
	})
}
