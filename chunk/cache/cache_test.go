package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestIncr(t *testing.T) {
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
	for _, step := range []struct {
		set  string // first, unless "-"
		by   int64
		want int64
		err  error
	}{
		{"-", 5, 5, nil}, {"-", -7, -2, nil}, {"41\n", 1, 42, nil}, {"x", 1, 0, ErrNotNumber}, {"", 1, 0, ErrNotNumber},
		{strconv.Itoa(math.MaxInt64), 1, 0, ErrNotNumber}, {strconv.Itoa(math.MinInt64), -1, 0, ErrNotNumber},
		{strconv.Itoa(math.MaxInt64), -1, math.MaxInt64 - 1, nil},
	} {
		if step.set != "-" {
			if _, err := c.Set(at, "n", []byte(step.set), Write{}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := c.Incr(at, "n", step.by); got != step.want && err == nil || !errors.Is(err, step.err) {
			t.Errorf("%q + %d = %d, %v, want %d, %v", step.set, step.by, got, err, step.want, step.err)
		}
	}
}

func TestExpiry(t *testing.T) {
	clk := &clock{time.Unix(1e9, 0)}
	c, at := newOne(t, Config{Limit: MinLimit, Now: clk.now}, Settings{TTL: time.Minute})
	w, err := c.Watch(at)
	if err != nil {
		t.Fatal(err)
	}
	c.mustSet(t, at, "asked")
	c.mustSet(t, at, "swept")
	c.mustSet(t, at, "kept")
	if err := c.Expire(at, "kept", time.Time{}); err != nil {
		t.Fatal(err)
	}
	clk.t = clk.t.Add(time.Minute - 1)
	if _, err := c.Get(at, "asked", nil); err != nil {
		t.Fatalf("a nanosecond early: %v", err)
	}
	clk.t = clk.t.Add(1)
	if _, err := c.Get(at, "asked", nil); !errors.Is(err, ErrMiss) {
		t.Errorf("expired: %v", err)
	}
	if s, _ := c.Stats(at); s.Items != 2 {
		t.Errorf("%d entries before the sweep, want 2", s.Items)
	}
	for !c.Sweep(100) {
	}
	s, _ := c.Stats(at)
	if s.Items != 1 || s.Expired != 2 || s.Evictions != 0 {
		t.Errorf("after the sweep: %+v", s)
	}
	for _, want := range []Event{
		{Change: Set, Key: "asked"}, {Change: Set, Key: "swept"}, {Change: Set, Key: "kept"},
		{Change: Expire, Key: "asked"}, {Change: Expire, Key: "swept"},
	} {
		if e, err := w.Next(t.Context()); err != nil || e.Change != want.Change || e.Key != want.Key {
			t.Errorf("%+v %v, want %+v", e, err, want)
		}
	}
}

// TestVersion: copies take the version of the original, never over a newer one.
func TestVersion(t *testing.T) {
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
	const v = 1 << 62
	for _, step := range []struct {
		version uint64
		err     error
	}{{v, nil}, {v, ErrConflict}, {v - 1, ErrConflict}, {v + 1, nil}} {
		if _, err := c.Set(at, "k", nil, Write{Version: step.version}); !errors.Is(err, step.err) {
			t.Errorf("version %d: %v, want %v", step.version, err, step.err)
		}
	}
	if err := c.Delete(at, "k", v); !errors.Is(err, ErrConflict) {
		t.Errorf("delete of another version: %v", err)
	}
	if err := c.Delete(at, "k", v+1); err != nil {
		t.Error(err)
	}
	if got, err := c.Set(at, "k", nil, Write{}); err != nil || got <= v+1 {
		t.Errorf("after a delete: version %d %v, want one above %d", got, err, uint64(v+1))
	}
}

// TestFill: of many who want an entry one gets it; if it gives up, the next one does.
func TestFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
		var filled, got atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				e, f, err := c.Fill(t.Context(), at, "k", nil)
				switch {
				case err != nil:
					t.Error(err)
				case f == nil:
					got.Add(1)
					if string(e.Value) != "value" {
						t.Errorf("value %q", e.Value)
					}
				default:
					n := filled.Add(1)
					time.Sleep(time.Second) // others come and wait
					if n < 3 {
						f.Abandon()
						return
					}
					if _, err := f.Commit([]byte("value"), Write{}); err != nil {
						t.Error(err)
					}
					f.Abandon()
				}
			})
		}
		wg.Wait()
		if filled.Load() != 3 || got.Load() != 47 {
			t.Errorf("%d filled and %d got it, want 3 and 47", filled.Load(), got.Load())
		}
		if s, _ := c.Stats(at); s.Misses != 3 || s.Hits != 47 {
			t.Errorf("%+v", s)
		}
	})
}

// TestFillEnds: a value that is older than what happened to the entry is not taken.
func TestFillEnds(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(c *Cache, at Bucket) error
		want error
	}{
		"delete": {func(c *Cache, at Bucket) error {
			if err := c.Delete(at, "k", 0); !errors.Is(err, ErrMiss) {
				return fmt.Errorf("delete: %w", err)
			}
			return nil
		}, ErrConflict},
		"set": {func(c *Cache, at Bucket) error {
			_, err := c.Set(at, "k", []byte("newer"), Write{})
			return err
		}, ErrConflict},
		"clear": {func(c *Cache, at Bucket) error {
			return c.Configure(Bucket{at.ID, at.Generation + 1}, Settings{})
		}, ErrStale},
		"close": {func(c *Cache, at Bucket) error { return c.Close() }, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
				_, f, err := c.Fill(t.Context(), at, "k", nil)
				if err != nil || f == nil {
					t.Fatal(f, err)
				}
				woken := make(chan error, 1)
				go func() {
					_, f, err := c.Fill(t.Context(), at, "k", nil)
					if f != nil {
						f.Abandon()
					}
					woken <- err
				}()
				synctest.Wait()
				if err := test.do(c, at); err != nil {
					t.Fatal(err)
				}
				if err := <-woken; err != nil && !errors.Is(err, test.want) {
					t.Errorf("who waited: %v", err)
				}
				if _, err := f.Commit([]byte("old"), Write{}); !errors.Is(err, test.want) {
					t.Errorf("commit: %v, want %v", err, test.want)
				}
			})
		})
	}
}

func TestFillCanceled(t *testing.T) {
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
	if _, f, err := c.Fill(t.Context(), at, "k", nil); err != nil || f == nil {
		t.Fatal(f, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, f, err := c.Fill(ctx, at, "k", nil); !errors.Is(err, context.Canceled) || f != nil {
		t.Errorf("a canceled wait: %v %v", f, err)
	}
}

// TestSlowWatcher: who does not keep up is told how much was missed, where it was.
func TestSlowWatcher(t *testing.T) {
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{})
	w, err := c.Watch(at)
	if err != nil {
		t.Fatal(err)
	}
	for i := range eventsMax + 10 {
		c.mustSet(t, at, strconv.Itoa(i))
	}
	for i := range eventsMax {
		if e, err := w.Next(t.Context()); err != nil || e.Key != strconv.Itoa(i) {
			t.Fatalf("event %d: %+v %v", i, e, err)
		}
	}
	if e, err := w.Next(t.Context()); err != nil || e.Change != Missed || e.Count != 10 {
		t.Fatalf("%+v %v, want 10 missed", e, err)
	}
	if err := c.Configure(Bucket{at.ID, at.Generation + 1}, Settings{}); err != nil {
		t.Fatal(err)
	}
	if e, err := w.Next(t.Context()); err != nil || e.Change != Clear {
		t.Fatalf("%+v %v, want clear", e, err)
	}
	c.Drop(at.ID)
	if _, err := w.Next(t.Context()); !errors.Is(err, ErrUnknown) {
		t.Errorf("after drop: %v", err)
	}
	w.Close()
}

// TestTogether: whatever many do at once, counters lose nothing, of compare-and-swap
// one wins, and the memory adds up.
func TestTogether(t *testing.T) {
	c, at := newOne(t, Config{Limit: MinLimit}, Settings{Policy: LFU})
	var wg sync.WaitGroup
	var sum, swapped atomic.Int64
	if _, err := c.Set(at, "swap", []byte("0"), Write{}); err != nil {
		t.Fatal(err)
	}
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				if _, err := c.Incr(at, "n", 1); err == nil {
					sum.Add(1)
				}
				if e, err := c.Get(at, "swap", nil); err == nil {
					n, _ := strconv.Atoi(string(e.Value))
					if _, err := c.Set(at, "swap", strconv.AppendInt(nil, int64(n+1), 10), Write{If: e.Version}); err == nil {
						swapped.Add(1)
					}
				}
				c.mustSet(t, at, fmt.Sprintf("%d-%d", g, i%100))
				if i%500 == 0 {
					if err := c.SetLimit(MinLimit + int64(g)<<20); err != nil {
						t.Error(err)
					}
				}
				c.Sweep(10)
			}
		})
	}
	wg.Wait()
	if e, err := c.Get(at, "n", nil); err != nil || string(e.Value) != strconv.FormatInt(sum.Load(), 10) || sum.Load() != 16000 {
		t.Errorf("counted %s %v, want %d", e.Value, err, sum.Load())
	}
	if e, err := c.Get(at, "swap", nil); err != nil || string(e.Value) != strconv.FormatInt(swapped.Load(), 10) {
		t.Errorf("swapped %s %v, want %d", e.Value, err, swapped.Load())
	}
	c.check(t)
}
