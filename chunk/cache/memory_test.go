package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"testing"
)

// raceDetector says that the race detector is at work.
var raceDetector bool

// rss is the process's resident memory in bytes.
func rss(t testing.TB) int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(text), &total, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// TestRealMemory: while several limits' worth of entries of changing sizes come in, the
// process grows by no more than the limit and a tenth; when less is allowed it
// shrinks at once, and what was given back is taken again.
func TestRealMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills the memory several times over")
	}
	value := bytes.Repeat([]byte{1}, MaxValue)
	debug.FreeOSMemory()
	before := rss(t)
	const limit = 80 << 20
	c, at := newOne(t, Config{Limit: limit}, Settings{})
	other := Bucket{ID: 8}
	if err := c.Configure(other, Settings{Policy: LFU}); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var most int64
	n := 0
	fill := func(total, allowed int64, size func() int) {
		t.Helper()
		for sum, next := int64(0), int64(0); sum < total; n++ {
			s := size()
			b := at
			if n%3 == 0 {
				b = other
			}
			if _, err := c.Set(b, fmt.Sprintf("key-%d", n), value[:s], Write{}); err != nil {
				t.Fatal(err)
			}
			if sum += int64(s); sum >= next {
				next = sum + 1<<20
				grown := rss(t) - before
				most = max(most, grown)
				if grown > allowed+allowed/10 && !raceDetector {
					t.Fatalf("grown by %d bytes with a limit of %d", grown, allowed)
				}
			}
		}
	}
	small := func() int { return 100 }
	mixed := func() int { return 1 << rnd.IntN(16) }
	large := func() int { return 200<<10 + rnd.IntN(3<<20) }
	fill(60<<20, limit, small)
	items := c.items()
	if want := int64(limit * 9 / 10 / 216); items < want {
		t.Errorf("%d entries of 100 bytes in %d, want at least %d", items, limit, want)
	}
	fill(2*limit, limit, mixed)
	fill(2*limit, limit, large)
	fill(60<<20, limit, small)
	t.Logf("limit %d, grown by %d at most; %d entries of 100 bytes", limit, most, items)
	c.check(t)

	if err := c.SetLimit(limit / 4); err != nil {
		t.Fatal(err)
	}
	debug.FreeOSMemory() // what the check took
	if grown := rss(t) - before; grown > limit/4*11/10 && !raceDetector {
		t.Errorf("%d bytes are held after the limit fell to %d", grown, limit/4)
	}
	c.check(t)
	debug.FreeOSMemory()
	if used, _ := c.Memory(); used < limit/4*9/10 {
		t.Errorf("only %d bytes of %d are left in use", used, limit/4)
	}
	fill(limit, limit/4, mixed)
	if err := c.SetLimit(limit); err != nil {
		t.Fatal(err)
	}
	fill(2*limit, limit, mixed)
	if used, _ := c.Memory(); used < limit*9/10 {
		t.Errorf("%d bytes of %d are in use again", used, limit)
	}
	c.check(t)
}

func (c *Cache) items() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.table.items)
}

// TestClear: a bucket of many entries is empty at once, and their memory serves others
// before anything that lives is evicted.
func TestClear(t *testing.T) {
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
	for i := range 30000 {
		c.mustSet(t, at, fmt.Sprintf("key-%d", i))
	}
	kept := Bucket{ID: 9}
	if err := c.Configure(kept, Settings{}); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		c.mustSet(t, kept, fmt.Sprintf("kept-%d", i))
	}
	next := Bucket{at.ID, at.Generation + 1}
	if err := c.Configure(next, Settings{}); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Stats(next); err != nil || s.Items != 0 || s.Bytes != 0 {
		t.Errorf("after clear: %+v %v", s, err)
	}
	if _, err := c.Set(at, "late", nil, Write{}); err == nil {
		t.Error("a write to the earlier generation succeeds")
	}
	for i := range 20000 {
		c.mustSet(t, next, fmt.Sprintf("new-%d", i))
	}
	for i := range 1000 {
		if _, err := c.Get(kept, fmt.Sprintf("kept-%d", i), nil); err != nil {
			t.Fatalf("an entry that lives was evicted before dead ones: %v", err)
		}
	}
	c.Drop(at.ID)
	if _, err := c.Get(next, "new-1", nil); err != ErrUnknown {
		t.Errorf("a bucket that was dropped: %v", err)
	}
	for !c.Sweep(1000) {
	}
	if n := c.items(); n != 1000 {
		t.Errorf("%d entries remain, want 1000", n)
	}
	c.check(t)
}
