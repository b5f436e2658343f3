package cache

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "of the model test; 0: one by the clock")

// check holds what c has of its memory against a walk over all of it.
func (c *Cache) check(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.pages
	inTable := make(map[ref]bool)
	for i := range c.table.n {
		for r := *c.table.head(i); r != 0; r = p.at(r).chain {
			if inTable[r] {
				t.Fatalf("entry %x is in the table twice", r)
			}
			inTable[r] = true
		}
	}
	if uint64(len(inTable)) != c.table.items {
		t.Fatalf("the table has %d entries and counts %d", len(inTable), c.table.items)
	}
	inPage := make(map[uint32]int)
	pages := len(c.table.heads)
	walk := func(l *list, state uint8) (items, bytes int64) {
		var prev ref
		for r := l.first; r != 0; prev, r = r, p.at(r).next {
			h := p.at(r)
			if h.prev != prev || !inTable[r] || h.state != state {
				t.Fatalf("entry %x: prev %x, want %x; in the table: %v; state %d", r, h.prev, prev, inTable[r], h.state)
			}
			delete(inTable, r)
			inPage[uint32(r>>pageBits)]++
			items++
			bytes += h.cost()
			for m := h.more; m != 0 && state == memory; m = *p.link(m) {
				pages++
			}
		}
		if l.last != prev {
			t.Fatalf("a list ends at %x and says %x", prev, l.last)
		}
		return items, bytes
	}
	walk(&c.dead, memory)
	if _, keys := walk(&c.onDisk, onDisk); keys != c.keys {
		t.Fatalf("keys of what is on disk take %d bytes and %d are counted", keys, c.keys)
	}
	diskItems := make(map[uint32]int64)
	for r := c.onDisk.first; r != 0; r = p.at(r).next {
		diskItems[p.at(r).life]++
	}
	for _, b := range c.buckets {
		var items, bytes int64
		for i := range b.lists {
			n, s := walk(&b.lists[i], memory)
			items, bytes = items+n, bytes+s
		}
		if items != b.stats.Items || bytes != b.stats.Bytes || diskItems[b.life] != b.stats.DiskItems {
			t.Fatalf("bucket %d has %d entries of %d bytes and counts %+v", b.id, items, bytes, b.stats)
		}
		if b.settings.Max > 0 && bytes > b.settings.Max {
			t.Fatalf("bucket %d has %d bytes, over %d", b.id, bytes, b.settings.Max)
		}
	}
	if len(inTable) > 0 {
		t.Fatalf("%d entries are in the table and on no list", len(inTable))
	}
	for i, n := range inPage {
		pages++
		if int(p.page[i].used) != n {
			t.Fatalf("page %d has %d entries and counts %d", i, n, p.page[i].used)
		}
	}
	if pages != p.used {
		t.Fatalf("%d pages are in use and %d counted", pages, p.used)
	}
	if p.resident() > c.limit+overdraft || c.disk == nil && p.resident() > c.limit {
		t.Fatalf("%d bytes, over the limit of %d", p.resident(), c.limit)
	}
}

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// twin is a Cache as simple as can be, which loses nothing.
type twin struct {
	generation uint64
	m          map[string]Entry
	past       map[string]uint64 // the last version of each key, deleted or not
}

func (w *twin) get(key string, now time.Time) (Entry, bool) {
	e, ok := w.m[key]
	if ok && !e.Expires.IsZero() && !e.Expires.After(now) {
		delete(w.m, key)
		return Entry{}, false
	}
	return e, ok
}

// TestModel does the same at random to a Cache and to a twin. With room for all they
// agree; under pressure the Cache may miss, and has nothing that the twin has not.
func TestModel(t *testing.T) {
	for _, pressed := range []bool{false, true} {
		for _, policy := range []Policy{LRU, LFU, FIFO} {
			t.Run(fmt.Sprintf("pressed=%v/policy=%d", pressed, policy), func(t *testing.T) {
				model(t, rand.New(rand.NewPCG(randomSeed(t), 1)), pressed, Settings{Policy: policy})
			})
		}
	}
	for _, tier := range []Tier{OnDisk, Both} {
		t.Run(fmt.Sprintf("tier=%d", tier), func(t *testing.T) {
			model(t, rand.New(rand.NewPCG(randomSeed(t), 1)), true, Settings{Tier: tier})
		})
	}
}

func randomSeed(t *testing.T) uint64 {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	return s
}

func model(t *testing.T, rnd *rand.Rand, pressed bool, settings Settings) {
	clk := &clock{time.Unix(1e9, 0)}
	limit, keys, large := int64(1<<30), 300, 200<<10
	if pressed {
		limit, keys, large = MinLimit, 3000, 2<<20
	}
	cfg := Config{Limit: limit, Now: clk.now}
	if settings.Tier != InMemory {
		cfg.Limit, cfg.Disk, cfg.DiskMax = limit+DiskMemory, t.TempDir(), MinDisk
	}
	c := running(t, cfg)
	twins := make([]*twin, 3)
	for i := range twins {
		twins[i] = &twin{m: map[string]Entry{}, past: map[string]uint64{}}
		if pressed && i == 0 {
			settings.Max = 2 << 20
		}
		if err := c.Configure(Bucket{ID: uint64(i)}, settings); err != nil {
			t.Fatal(err)
		}
		settings.Max = 0
	}
	// lost says whether c may say that key is not there although the twin has it.
	lost := func(w *twin, key string, err error) bool {
		if pressed && errors.Is(err, ErrMiss) {
			delete(w.m, key)
			return true
		}
		return false
	}
	steps := 30000
	if testing.Short() {
		steps /= 5
	}
	for step := range steps {
		i := rnd.IntN(len(twins))
		w, at := twins[i], Bucket{uint64(i), twins[i].generation}
		key := "k" + strconv.Itoa(rnd.IntN(keys))
		e, there := w.get(key, clk.t)
		fail := func(what string, got, want any) {
			t.Helper()
			t.Fatalf("step %d: %s %v %s: %v, want %v", step, what, at, key, got, want)
		}
		switch op := rnd.IntN(100); {
		case op < 40:
			got, err := c.Get(at, key, nil)
			switch {
			case there && err == nil:
				if !bytes.Equal(got.Value, e.Value) || got.Version != e.Version || !got.Expires.Equal(e.Expires) {
					fail("get", len(got.Value), len(e.Value))
				}
			case there && !lost(w, key, err), !there && !errors.Is(err, ErrMiss):
				fail("get", err, there)
			}
		case op < 75:
			n := rnd.IntN(300)
			if rnd.IntN(50) == 0 {
				n = rnd.IntN(large)
			}
			value := bytes.Repeat([]byte{byte(rnd.Uint32())}, n)
			write := Write{Add: rnd.IntN(5) == 0, Keep: rnd.IntN(5) == 0}
			if rnd.IntN(3) == 0 {
				write.Expires = clk.t.Add(time.Duration(1 + rnd.IntN(1000)))
			}
			if rnd.IntN(5) == 0 {
				write.If = e.Version + uint64(rnd.IntN(2))
			}
			version, err := c.Set(at, key, value, write)
			if there && errors.Is(err, ErrMiss) && lost(w, key, err) {
				break
			}
			var want error
			switch {
			case i == 0 && pressed && errors.Is(err, ErrTooLarge):
				want = ErrTooLarge
			case there && write.Add:
				want = ErrExist
				if err == nil && pressed {
					want, there = nil, false // it was evicted
				}
			case there && write.If != 0 && write.If != e.Version:
				want = ErrConflict
			case !there && write.If != 0:
				want = ErrMiss
			}
			if !errors.Is(err, want) {
				fail(fmt.Sprintf("set %+v", write), err, want)
			}
			if err == nil {
				if version <= w.past[key] {
					fail("version", version, w.past[key])
				}
				w.past[key] = version
				expires := write.Expires
				if write.Keep && there {
					if expires = e.Expires; pressed {
						got, _, err := c.Stat(at, key)
						if err != nil || !got.Expires.Equal(expires) && !got.Expires.Equal(write.Expires) {
							fail("keep", got, err)
						}
						expires = got.Expires
					}
				}
				w.m[key] = Entry{value, version, expires}
			}
		case op < 85:
			err := c.Delete(at, key, 0)
			if !there && !errors.Is(err, ErrMiss) || there && err != nil && !lost(w, key, err) {
				fail("delete", err, there)
			}
			delete(w.m, key)
		case op < 90:
			when := clk.t.Add(time.Duration(1 + rnd.IntN(1000)))
			err := c.Expire(at, key, when)
			if !there && !errors.Is(err, ErrMiss) || there && err != nil && !lost(w, key, err) {
				fail("expire", err, there)
			}
			if there && err == nil {
				e.Expires = when
				w.m[key] = e
			}
		case op < 98:
			clk.t = clk.t.Add(time.Duration(rnd.IntN(100)))
			c.Sweep(rnd.IntN(100))
		case rnd.IntN(20) == 0:
			w.generation++
			w.m = map[string]Entry{}
			s := settings
			if i == 0 && pressed {
				s.Max = 2 << 20
			}
			if err := c.Configure(Bucket{uint64(i), w.generation}, s); err != nil {
				fail("clear", err, nil)
			}
			if _, err := c.Get(at, key, nil); !errors.Is(err, ErrStale) {
				fail("get of the last generation", err, ErrStale)
			}
		}
		if step%500 == 0 {
			c.check(t)
		}
	}
	c.check(t)
	for i, w := range twins {
		at := Bucket{uint64(i), w.generation}
		got := scan(t, c, at)
		for key := range w.m {
			if _, ok := w.get(key, clk.t); !ok {
				continue
			}
			if !got[key] && !pressed {
				t.Errorf("%v %s is not listed", at, key)
			}
		}
		for key := range got {
			if _, ok := w.m[key]; !ok {
				t.Errorf("%v %s is listed and should not be there", at, key)
			}
		}
	}
}

func scan(t *testing.T, c *Cache, at Bucket) map[string]bool {
	all := make(map[string]bool)
	for from := uint64(0); ; {
		keys, next, err := c.Scan(at, from, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			all[k] = true
		}
		if from = next; next == 0 {
			return all
		}
	}
}

// TestPolicies holds each policy to the order in which it evicts.
func TestPolicies(t *testing.T) {
	const n = 8
	one := cost(2, 100)
	for _, test := range []struct {
		name   string
		policy Policy
		does   func(get, set func(i int))
		want   []int // the order
	}{
		{"lru", LRU, func(get, set func(int)) { get(0); get(3); set(1) }, []int{2, 4, 5, 6, 7, 0, 3, 1}},
		{"fifo", FIFO, func(get, set func(int)) { get(0); get(3); set(1) }, []int{0, 2, 3, 4, 5, 6, 7, 1}},
		{"lfu", LFU, func(get, set func(int)) {
			for range 8 {
				get(0)
			}
			get(1)
			for range 4 {
				get(2)
			}
			get(5)
			set(5) // counts anew
		}, []int{3, 4, 6, 7, 5, 1, 2, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, at := newOne(t, Config{Limit: MinLimit}, Settings{Policy: test.policy, Max: n * one})
			key := func(i int) string { return fmt.Sprintf("%02d", i) }
			set := func(i int) {
				if _, err := c.Set(at, key(i), make([]byte, 100), Write{}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range n {
				set(i)
			}
			test.does(func(i int) {
				if _, err := c.Get(at, key(i), nil); err != nil {
					t.Fatal(err)
				}
			}, set)
			w, err := c.Watch(at)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			var got []int
			// An entry of a whole bucket's size puts all out, in order.
			whole := 0
			for _, s := range slots {
				if s <= int(n*one) {
					whole = s
				}
			}
			if _, err := c.Set(at, "xx", make([]byte, whole-headerSize-2), Write{}); err != nil {
				t.Fatal(err)
			}
			for range n {
				e, err := w.Next(t.Context())
				if err != nil || e.Change != Evict {
					t.Fatalf("%+v %v", e, err)
				}
				i, _ := strconv.Atoi(e.Key)
				got = append(got, i)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("evicted %v, want %v", got, test.want)
			}
			c.check(t)
		})
	}
}

// newOne returns a cache with one bucket.
func newOne(t testing.TB, cfg Config, s Settings) (*Cache, Bucket) {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	at := Bucket{ID: 7, Generation: 3}
	if err := c.Configure(at, s); err != nil {
		t.Fatal(err)
	}
	return c, at
}

// TestLFUForgets: what was read often once goes when nobody reads it any more.
func TestLFUForgets(t *testing.T) {
	const n = 100
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{Policy: LFU, Max: n * cost(3, 100)})
	for i := range n {
		c.mustSet(t, at, fmt.Sprintf("%03d", i))
	}
	for range 500 {
		_, _ = c.Get(at, "000", nil)
	}
	c.mustSet(t, at, "new")
	if _, _, err := c.Stat(at, "000"); err != nil {
		t.Fatalf("the entry read most often: %v", err)
	}
	for i := range 40000 {
		_, _ = c.Get(at, fmt.Sprintf("%03d", 50+i%50), nil)
	}
	for i := range 60 {
		c.mustSet(t, at, fmt.Sprintf("n%02d", i))
		for range 16 {
			_, _ = c.Get(at, fmt.Sprintf("n%02d", i), nil)
		}
	}
	if _, _, err := c.Stat(at, "000"); !errors.Is(err, ErrMiss) {
		t.Errorf("the entry that was popular once: %v, want it evicted", err)
	}
	c.check(t)
}

func (c *Cache) mustSet(t testing.TB, at Bucket, key string) {
	t.Helper()
	if _, err := c.Set(at, key, make([]byte, 100), Write{}); err != nil {
		t.Fatalf("set %s: %v", key, err)
	}
}

// TestSlots: every size of value goes in and comes out, at the edges of slots and pages.
func TestSlots(t *testing.T) {
	c, at := newOne(t, Config{Limit: 16 << 20}, Settings{})
	sizes := map[int]bool{0: true, MaxValue: true}
	for _, s := range append(slices.Clone(slots), pageSize+perPage, pageSize+2*perPage) {
		for d := -2; d <= 2; d++ {
			sizes[s-headerSize-3+d] = true
		}
	}
	for _, n := range slices.Sorted(maps.Keys(sizes)) {
		value := make([]byte, n)
		for i := range value {
			value[i] = byte(i * 7 >> 3)
		}
		if _, err := c.Set(at, "key", value, Write{}); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		e, err := c.Get(at, "key", []byte("x"))
		if err != nil || !bytes.Equal(e.Value[1:], value) || e.Value[0] != 'x' {
			t.Fatalf("%d bytes: other bytes come out, or %v", n, err)
		}
		c.check(t)
	}
	if _, err := c.Set(at, "key", make([]byte, MaxValue+1), Write{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a value too large: %v", err)
	}
	if _, size, err := c.Stat(at, "key"); err != nil || size != MaxValue {
		t.Errorf("what was there before: %d bytes, %v", size, err)
	}
}
