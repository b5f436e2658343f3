package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/stripe/stripetest"
)

// bubble runs f in fake time.
func bubble(t *testing.T, n int, f func(t *testing.T, p *Path, c *stripetest.Cluster), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, c := open(t, n, change...)
		f(t, p, c)
	})
}

func begin(t *testing.T, p *Path) chunk.StripeID {
	t.Helper()
	id, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var errBoom = errors.New("boom")

// A store that fails a write is replaced by a spare, or the stripe is written
// again to fewer stores under another ID.
func TestWriteFaults(t *testing.T) {
	fail := func(err error) func(*stripetest.Store) { return func(s *stripetest.Store) { s.Fail(err) } }
	hang := func(deaf bool) func(*stripetest.Store) { return func(s *stripetest.Store) { s.Hang(deaf) } }
	full := func(s *stripetest.Store) { s.Limit(1) }
	for _, test := range []struct {
		name      string
		stores, n int
		faults    int
		fault     func(*stripetest.Store)
		want      string // code
		again     bool   // another ID
		err       error
		most      time.Duration
	}{
		{"one fails", 6, 1 << 20, 1, fail(errBoom), "3+2", true, nil, 0},
		{"two fail", 6, 1 << 20, 2, fail(errBoom), "2+2", true, nil, 0},
		{"three fail", 6, 1 << 20, 3, fail(errBoom), "1+2", true, nil, 0},
		{"four fail", 6, 1 << 20, 4, fail(errBoom), "", false, chunk.ErrTooFew, 0},
		{"all fail", 6, 100, 6, fail(errBoom), "", false, chunk.ErrTooFew, 0},
		{"one of eight fails", 8, 1 << 20, 1, fail(errBoom), "4+2", false, nil, 0},
		{"two of eight fail", 8, 1 << 20, 2, fail(errBoom), "4+2", false, nil, 0},
		{"copies have spares", 6, 100, 3, fail(errBoom), "1+2", false, nil, 0},
		{"one is full", 6, 1 << 20, 1, full, "3+2", true, nil, 0},
		{"four are full", 6, 1 << 20, 4, full, "", false, chunk.ErrFull, 0},
		{"all are full", 6, 100, 6, full, "", false, chunk.ErrFull, 0},
		{"one hangs", 6, 1 << 20, 1, hang(false), "3+2", true, nil, DefaultGiveUp},
		{"one of eight hangs", 8, 1 << 20, 1, hang(false), "4+2", false, nil, DefaultSlow},
		{"one is deaf", 6, 1 << 20, 1, hang(true), "3+2", true, nil, DefaultGiveUp + settle},
		{"one of eight is deaf", 8, 1 << 20, 1, hang(true), "4+2", false, nil, DefaultSlow + settle},
		{"two hang", 6, 1 << 20, 2, hang(false), "2+2", true, nil, DefaultGiveUp},
		{"all hang", 6, 1 << 20, 6, hang(false), "", false, context.DeadlineExceeded, DefaultTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, test.stores, func(t *testing.T, p *Path, c *stripetest.Cluster) {
				for i := range test.faults {
					test.fault(c.Faulty(chunk.StoreID(i + 1)))
				}
				data := random(5, test.n)
				// Several IDs, so that the faulty stores come in each place.
				for range 5 {
					start := time.Now()
					id := begin(t, p)
					s, err := p.Write(t.Context(), id, data)
					if !errors.Is(err, test.err) {
						t.Fatalf("Write: %v, want %v", err, test.err)
					}
					if d := time.Since(start); d > test.most {
						t.Errorf("Write took %v, want at most %v", d, test.most)
					}
					if err != nil {
						// All but M, which need not have been asked.
						if named := strings.Count(err.Error(), "store "); named < test.faults-int(wanted.M) {
							t.Errorf("error %q names %d stores, %d failed", err, named, test.faults)
						}
						p.End(id)
						continue
					}
					if s.Code.String() != test.want {
						t.Errorf("code %v, want %s", s.Code, test.want)
					}
					if s.ID != id && !test.again {
						t.Errorf("stripe %d written as %d", id, s.ID)
					}
					for i := range test.faults {
						if slices.Contains(s.Stores, chunk.StoreID(i+1)) {
							t.Errorf("stripe %v is on a faulty store", s)
						}
					}
					checkStored(t, c, s)
					check(t, p, s, data)
					if low := p.Low(); low > id {
						t.Errorf("Low = %d before End(%d)", low, id)
					}
					p.End(s.ID) // either ID ends it
					if low := p.Low(); low <= s.ID {
						t.Errorf("Low = %d after End(%d)", low, s.ID)
					}
				}
			})
		})
	}
}

// When all stores are slow they are waited for.
func TestAllSlow(t *testing.T) {
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		for _, id := range c.Stores() {
			c.Faulty(id).Slow(20 * time.Second)
		}
		data := random(5, 1<<20)
		s := write(t, p, data)
		if s.Code != wanted {
			t.Errorf("code %v, want %v", s.Code, wanted)
		}
		for _, id := range c.Stores() {
			c.Faulty(id).Slow(0)
		}
		check(t, p, s, data)
	})
}

// A failed attempt leaves nothing behind.
func TestFailedAttemptIsDiscarded(t *testing.T) {
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		for i := range 4 {
			c.Faulty(chunk.StoreID(i + 1)).Limit(1)
		}
		if _, err := p.Write(t.Context(), begin(t, p), random(1, 1<<20)); !errors.Is(err, chunk.ErrFull) {
			t.Fatalf("Write: %v, want ErrFull", err)
		}
		synctest.Wait()
		for _, id := range c.Stores() {
			if left := c.Faulty(id).Shards(); len(left) != 0 {
				t.Errorf("store %d keeps %v", id, left)
			}
		}
		for i := range 4 {
			c.Faulty(chunk.StoreID(i + 1)).Limit(0)
		}
		data := random(1, 1<<20)
		s := write(t, p, data)
		check(t, p, s, data)
		p.Discard(t.Context(), s)
		for _, id := range c.Stores() {
			if left := c.Faulty(id).Shards(); len(left) != 0 {
				t.Errorf("after Discard store %d keeps %v", id, left)
			}
		}
	})
}

func TestWriteInterrupted(t *testing.T) {
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		c.Faulty(1).Hang(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Write(ctx, begin(t, p), random(1, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write: %v, want DeadlineExceeded", err)
		}
	})
}

// damage collects reports.
type damage struct {
	mu  sync.Mutex
	ids []chunk.ID
}

func (d *damage) add(id chunk.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.ids, id) {
		d.ids = append(d.ids, id)
	}
}

func (d *damage) take() []chunk.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := d.ids
	d.ids = nil
	slices.SortFunc(ids, chunk.ID.Compare)
	return ids
}

func TestReadFaults(t *testing.T) {
	for _, test := range []struct {
		name    string
		fault   func(s *stripetest.Store, id chunk.ID)
		damaged bool
		most    time.Duration // for each read
	}{
		{"down", func(s *stripetest.Store, id chunk.ID) { s.Down(true) }, false, 0},
		{"fails", func(s *stripetest.Store, id chunk.ID) { s.Fail(errBoom) }, false, 0},
		{"lost", func(s *stripetest.Store, id chunk.ID) { s.Lose() }, true, 0},
		{"corrupt", func(s *stripetest.Store, id chunk.ID) { s.Corrupt(id) }, true, 0},
		{"hangs", func(s *stripetest.Store, id chunk.ID) { s.Hang(false) }, false, unknown * DefaultHedge},
		{"slow", func(s *stripetest.Store, id chunk.ID) { s.Slow(time.Second) }, false, unknown * DefaultHedge},
	} {
		for _, n := range []int{10_000, 1 << 20} {
			for count := range 4 { // shards hit: 0 to 3
				t.Run(fmt.Sprintf("%s %d bytes %d shards", test.name, n, count), func(t *testing.T) {
					var d damage
					bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
						data := random(9, n)
						s := write(t, p, data)
						for i := range min(count, len(s.Stores)) {
							test.fault(c.Faulty(s.Stores[i]), chunk.ID{Stripe: s.ID, Index: uint8(i)})
						}
						got := make([]byte, n)
						start := time.Now()
						err := p.Read(t.Context(), s, got, 0)
						took := time.Since(start)
						if count <= 2 {
							if err != nil || !bytes.Equal(got, data) {
								t.Fatalf("Read: %v, equal %v", err, bytes.Equal(got, data))
							}
							// A hedge of a copy may fall on another that hangs.
							if limit := time.Duration(count) * test.most; took > limit {
								t.Errorf("Read took %v, want at most %v", took, limit)
							}
							if ids := d.take(); test.damaged && count > 0 && len(ids) == 0 || !test.damaged && len(ids) > 0 {
								t.Errorf("damage reported: %v", ids)
							}
							return
						}
						if test.name == "slow" {
							if err != nil || !bytes.Equal(got, data) {
								t.Errorf("Read of slow stores: %v", err)
							}
							return
						}
						if n > chunk.CopyMax || test.name != "lost" {
							if !errors.Is(err, chunk.ErrTooFew) {
								t.Fatalf("Read: %v, want ErrTooFew", err)
							}
							if took > DefaultTimeout+DefaultSlow {
								t.Errorf("Read failed after %v", took)
							}
							for i := range count {
								if name := fmt.Sprintf("store %d:", s.Stores[i]); !strings.Contains(err.Error(), name) {
									t.Errorf("error %q does not name %q", err, name)
								}
							}
						} else if !errors.Is(err, chunk.ErrNotExist) {
							t.Fatalf("Read: %v, want ErrNotExist", err)
						}
					}, func(c *Config) { c.Damaged = d.add })
				})
			}
		}
	}
}

// A stripe that no live store has ever heard of was collected.
func TestReadCollected(t *testing.T) {
	var d damage
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		for _, n := range []int{100, 1 << 20} {
			s := write(t, p, random(1, n))
			p.Discard(t.Context(), s)
			got := make([]byte, n)
			if err := p.Read(t.Context(), s, got, 0); !errors.Is(err, chunk.ErrNotExist) || !errors.Is(err, chunk.ErrGone) {
				t.Errorf("Read: %v, want ErrNotExist, and that it is gone", err)
			}
			c.Faulty(s.Stores[0]).Down(true)
			if err := p.Read(t.Context(), s, got, 0); !errors.Is(err, chunk.ErrNotExist) || errors.Is(err, chunk.ErrGone) {
				t.Errorf("Read with a store down, which may have it: %v, want ErrNotExist", err)
			}
			c.Faulty(s.Stores[0]).Down(false)
			if ids := d.take(); len(ids) != 0 {
				t.Errorf("damage reported of a stripe that was collected: %v", ids)
			}
			for _, id := range s.Stores {
				c.Faulty(id).Down(true)
			}
			if err := p.Read(t.Context(), s, got, 0); !errors.Is(err, chunk.ErrTooFew) {
				t.Errorf("Read with all stores down: %v, want ErrTooFew", err)
			}
			for _, id := range s.Stores {
				c.Faulty(id).Down(false)
			}
		}
	}, func(c *Config) { c.Damaged = d.add })
}

// One slow store costs hedges only up to a twentieth of the reads; the others
// wait for it.
func TestHedgesAreBounded(t *testing.T) {
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		data := random(2, 1<<20)
		s := write(t, p, data)
		slow := c.Faulty(s.Stores[0])
		slow.Slow(50 * time.Millisecond)
		p.pace.credit.Store(0)
		others := func() (n int64) {
			for _, id := range s.Stores[1:] {
				n += c.Faulty(id).Gets.Load()
			}
			return n
		}
		before := others()
		b := make([]byte, 4096)
		const reads = 400
		for range reads {
			if err := p.Read(t.Context(), s, b, 4096); err != nil || !bytes.Equal(b, data[4096:8192]) {
				t.Fatalf("Read: %v", err)
			}
		}
		if hedges := (others() - before) / 4; hedges > reads/20 || hedges == 0 {
			t.Errorf("%d hedges of %d reads, want some and at most %d", hedges, reads, reads/20)
		}
	})
}

// A store that hangs costs one slow read when hedges are used up, not one each.
func TestHungStoreIsPassedOver(t *testing.T) {
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		data := random(2, 1<<20)
		s := write(t, p, data)
		c.Faulty(s.Stores[0]).Hang(false)
		p.pace.credit.Store(0)
		b := make([]byte, 4096)
		start := time.Now()
		for range 1000 {
			if err := p.Read(t.Context(), s, b, 0); err != nil || !bytes.Equal(b, data[:4096]) {
				t.Fatalf("Read: %v", err)
			}
		}
		if d := time.Since(start); d > DefaultSlow+DefaultHedge {
			t.Errorf("1000 reads took %v, want %v", d, DefaultSlow)
		}
		c.Faulty(s.Stores[0]).Resume()
		time.Sleep(afterSlow)
		before := c.Faulty(s.Stores[0]).Gets.Load()
		if err := p.Read(t.Context(), s, b, 0); err != nil || c.Faulty(s.Stores[0]).Gets.Load() != before+1 {
			t.Errorf("Read after it came back: %v, and the store was not asked", err)
		}
	})
}

// The time before a hedge follows what reads take.
func TestPace(t *testing.T) {
	var p pace
	p.init(3*time.Millisecond, time.Second)
	if d := p.delay(); d != 30*time.Millisecond {
		t.Errorf("delay before the first read = %v, want 30ms", d)
	}
	for range 1000 {
		p.took(10 * time.Microsecond)
	}
	if d := p.delay(); d != 3*time.Millisecond {
		t.Errorf("delay with fast reads = %v, want 3ms", d)
	}
	for i := range 1000 {
		p.took(time.Duration(i%100) * time.Millisecond)
	}
	if d := p.delay(); d < 80*time.Millisecond || d > 100*time.Millisecond {
		t.Errorf("delay with reads of up to 100 ms = %v, want about 95ms", d)
	}
	for range 1000 {
		p.took(time.Minute)
	}
	if d := p.delay(); d != time.Second {
		t.Errorf("delay with reads of a minute = %v, want 1s", d)
	}
}
