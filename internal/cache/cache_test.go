package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	entries "dos/chunk/cache"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/client"
)

// keyOf returns a key of the bucket b that a machine owns.
func (w *world) keyOf(name string) (key string, bucket cache.Bucket) {
	w.t.Helper()
	o := w.overview()
	ring := o.Maps[len(o.Maps)-1].Ring()
	for i := range 1000 {
		key = fmt.Sprint("key", i)
		if ring.Owner(cache.Hash(o.Buckets[0].ID, key)) == w.machine(name).session {
			return key, o.Buckets[0]
		}
	}
	w.t.Fatalf("%s owns nothing", name)
	return "", bucket
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestCalls has each call do what it says, whoever owns the key and has copies of it.
func TestCalls(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	c := w.client(0)
	ctx := t.Context()
	for replicas := 1; replicas <= 3; replicas++ {
		b := fmt.Sprint("b", replicas)
		w.make(c, b, replicas)
		for _, name := range []string{"one", "two", "some/long/key", "four"} {
			_, err := c.Get(ctx, b, name)
			want(t, "a miss", err, meta.NotExist)
			want(t, "deleting nothing", c.Delete(ctx, b, name, 0), meta.NotExist)
			_, err = c.Set(ctx, b, name, []byte("x"), Options{Replace: true})
			want(t, "replacing nothing", err, meta.NotExist)
			v1, err := c.Set(ctx, b, name, []byte("v1"), Options{Add: true, TTL: time.Hour})
			want(t, "adding", err, nil)
			_, err = c.Set(ctx, b, name, []byte("x"), Options{Add: true})
			want(t, "adding what is there", err, meta.Exist)
			e, err := c.Get(ctx, b, name)
			if string(e.Value) != "v1" || e.Version != v1 || e.TTL < 59*time.Minute || e.TTL > time.Hour || err != nil {
				t.Errorf("got %+v, %v", e, err)
			}
			v2, err := c.Set(ctx, b, name, []byte("version 2"), Options{If: v1, Keep: true})
			want(t, "writing over the version", err, nil)
			_, err = c.Set(ctx, b, name, []byte("x"), Options{If: v1})
			want(t, "writing over another version", err, meta.Conflict)
			if e, err := c.Stat(ctx, b, name); e.Version != v2 || v2 <= v1 || e.Size != 9 || e.Value != nil || e.TTL < 59*time.Minute {
				t.Errorf("stat %+v, %v", e, err)
			}
			want(t, "a time", c.Expire(ctx, b, name, time.Minute), nil)
			if e, _ := c.Stat(ctx, b, name); e.TTL > time.Minute || e.Version != v2 {
				t.Errorf("stat %+v", e)
			}
			want(t, "no time", c.Expire(ctx, b, name, 0), nil)
			if e, _ := c.Stat(ctx, b, name); e.TTL != 0 {
				t.Errorf("stat %+v", e)
			}
			want(t, "deleting another version", c.Delete(ctx, b, name, v1), meta.Conflict)
			want(t, "deleting the version", c.Delete(ctx, b, name, v2), nil)
			for i, by := range []int64{5, -7, 3} {
				n, err := c.Incr(ctx, b, name, by)
				if want := []int64{5, -2, 1}[i]; n != want || err != nil {
					t.Errorf("%d added is %d, %v, want %d", by, n, err, want)
				}
			}
			_, err = c.Set(ctx, b, name, []byte("text"), Options{})
			want(t, "text", err, nil)
			_, err = c.Incr(ctx, b, name, 1)
			want(t, "adding to text", err, meta.Invalid)
			_, err = c.Set(ctx, b, name, make([]byte, cache.ValueMax+1), Options{})
			want(t, "too large a value", err, meta.TooLarge)
			large := slices.Repeat([]byte("large"), 20000)
			_, err = c.Set(ctx, b, name, large, Options{})
			want(t, "a large value", err, nil)
			if e, err := c.Get(ctx, b, name); string(e.Value) != string(large) || err != nil {
				t.Errorf("got %d bytes, %v", len(e.Value), err)
			}
		}
		var keys []string
		if err := c.Scan(ctx, b, func(key string) bool { keys = append(keys, key); return true }); err != nil {
			t.Error(err)
		}
		slices.Sort(keys)
		if got := strings.Join(slices.Compact(keys), " "); got != "four one some/long/key two" {
			t.Errorf("keys %s", got)
		}
		list, err := c.Stats(ctx, b)
		items := int64(0)
		for _, s := range list {
			items += s.Items
		}
		if items != int64(4*replicas) || len(list) != 3 || err != nil {
			t.Errorf("with %d replicas: %+v, %v", replicas, list, err)
		}
		want(t, "clearing", c.Clear(ctx, b), nil)
		_, err = c.Get(ctx, b, "one")
		want(t, "what was cleared", err, meta.NotExist)
		want(t, "removing", c.Remove(ctx, b), nil)
		_, err = c.Set(ctx, b, "one", nil, Options{})
		want(t, "writing to what was removed", err, meta.NotExist)
	}
	_, err := c.Set(ctx, "none", "", nil, Options{})
	want(t, "an empty key", err, meta.Invalid)
	_, err = c.Set(ctx, "none", strings.Repeat("k", cache.KeyMax+1), nil, Options{})
	want(t, "a long key", err, meta.TooLarge)
}

// TestFill has one of many provide a value, and another when that one ends or is gone.
func TestFill(t *testing.T) {
	for replicas := 1; replicas <= 2; replicas++ {
		w := newWorld(t, "a", "b")
		c, other := w.client(0), w.client(0)
		ctx := t.Context()
		w.make(c, "b", replicas)
		_, right, err := c.Fill(ctx, "b", "k", true)
		if right == nil || err != nil {
			t.Fatalf("first: %v, %v", right, err)
		}
		_, _, err = other.Fill(ctx, "b", "k", false)
		want(t, "without waiting", err, meta.WouldWait)
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		_, _, err = other.Fill(short, "b", "k", true)
		cancel()
		want(t, "interrupted", err, context.DeadlineExceeded)
		right.Abandon(ctx)
		_, right, err = other.Fill(ctx, "b", "k", true)
		if right == nil || err != nil {
			t.Fatalf("after it was abandoned: %v, %v", right, err)
		}
		got := make(chan string, 1)
		go func() {
			e, _, err := c.Fill(ctx, "b", "k", true)
			got <- fmt.Sprint(string(e.Value), err)
		}()
		if _, err := right.Commit(ctx, []byte("filled"), Options{TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if text := <-got; text != "filled<nil>" {
			t.Errorf("who waited got %q", text)
		}
		_, err = right.Commit(ctx, []byte("again"), Options{})
		want(t, "a second time", err, meta.Conflict)
		want(t, "deleting", c.Delete(ctx, "b", "k", 0), nil)
		_, right, err = c.Fill(ctx, "b", "k", true)
		if right == nil || err != nil {
			t.Fatalf("after it was deleted: %v, %v", right, err)
		}
		want(t, "deleting what is being filled", other.Delete(ctx, "b", "k", 0), meta.NotExist)
		_, err = right.Commit(ctx, []byte("old"), Options{})
		want(t, "what was deleted meanwhile", err, meta.Conflict)
		_, err = c.Get(ctx, "b", "k")
		want(t, "what was refused", err, meta.NotExist)
		// Who has a right and is gone has it no more.
		gone := w.client(0)
		if _, right, err = gone.Fill(ctx, "b", "k", true); right == nil || err != nil {
			t.Fatalf("first again: %v, %v", right, err)
		}
		gone.peers.close()
		if _, right, err = c.Fill(ctx, "b", "k", true); right == nil || err != nil {
			t.Fatalf("after the other is gone: %v, %v", right, err)
		}
		right.Abandon(ctx)
	}
}

// TestSurvives has entries with copies outlive their owner, and those without not.
func TestSurvives(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	c := w.client(0)
	w.make(c, "b", 2)
	const n = 300
	for i := range n {
		if _, err := c.Set(t.Context(), "b", fmt.Sprint(i), fmt.Append(nil, i), Options{}); err != nil {
			t.Fatal(err)
		}
	}
	a := w.machine("a")
	a.stop()
	if _, err := c.Set(t.Context(), "b", "0", []byte("0"), Options{}); err != nil { // also waits, if it was a's
		w.bury(a)
	}
	w.bury(a)
	w.settled(2)
	for i := range n {
		await(t, func() error {
			e, err := c.Get(t.Context(), "b", fmt.Sprint(i))
			if err == nil && string(e.Value) != fmt.Sprint(i) {
				t.Fatalf("entry %d is %q", i, e.Value)
			}
			return err
		})
	}
}

// TestOver: whose session may be over answers for nothing, and does not write either.
func TestOver(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := w.client(0)
	w.make(c, "b", 1)
	key, bucket := w.keyOf("a")
	if _, err := c.Set(t.Context(), "b", key, []byte("old"), Options{}); err != nil {
		t.Fatal(err)
	}
	a := w.machine("a")
	w.setCut("a meta", true)
	w.bury(a)
	if _, err := c.Set(t.Context(), "b", key, []byte("new"), Options{}); err != nil {
		t.Fatal(err)
	}
	for _, op := range []op{opGet, opStat, opSet, opDelete, opFill, opScan} {
		req := &request{Op: op, Bucket: bucket.ID, Generation: bucket.Generation, Key: key}
		if got := a.holder.do(t.Context(), a.holder.here, req); !got.Moved {
			t.Errorf("op %d: %+v", op, got)
		}
	}
	// The write may have been under way to a when that was found to be gone: it is lost then.
	if e, err := c.Get(t.Context(), "b", key); string(e.Value) != "new" && !errors.Is(err, meta.NotExist) {
		t.Errorf("%q, %v", e.Value, err)
	}
}

// TestWaits: who owns a key by another map waits for the one who had it, unless that is gone.
func TestWaits(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := w.client(0)
	w.make(c, "b", 1)
	a := w.machine("a")
	w.setCut("a meta", true) // it hears of nothing
	if _, err := c.Set(t.Context(), "b", "k", []byte("v"), Options{}); err != nil {
		t.Fatal(err)
	}
	b := w.machine("b")
	if err := client.Direct(w.meta, b.session).Call(t.Context(), cache.OpWeigh, cache.Weigh{Weight: 1 << 20}, nil); err != nil {
		t.Fatal(err)
	}
	o := w.overview()
	was, is := o.Maps[len(o.Maps)-2].Ring(), o.Maps[len(o.Maps)-1].Ring()
	key := ""
	for i := 0; key == "" || was.Owner(cache.Hash(o.Buckets[0].ID, key)) != a.session || is.Owner(cache.Hash(o.Buckets[0].ID, key)) != b.session; i++ {
		key = fmt.Sprint(i)
	}
	await(t, func() error {
		if v := b.holder.view.Load(); v.version < o.Version {
			return errors.New("not yet")
		}
		return nil
	})
	get := &request{Op: opGet, Bucket: o.Buckets[0].ID, Key: key}
	if got := b.holder.do(t.Context(), b.holder.here, get); got.Kind != meta.NotExist || !got.Unsure {
		t.Errorf("a read is answered %+v", got)
	}
	set := &request{Op: opSet, Bucket: o.Buckets[0].ID, Key: key}
	if _, done := b.holder.quick(b.holder.here, set); done {
		t.Error("a write does not wait")
	}
	w.setCut("a meta", false)
	if got := b.holder.do(t.Context(), b.holder.here, set); got.err() != nil || got.Moved {
		t.Errorf("when the other knows, a write is answered %+v", got)
	}
}

// TestDistrusted: who was distrusted has no copies any more, and gets new ones.
func TestDistrusted(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := w.client(0)
	w.make(c, "b", 2)
	key, bucket := w.keyOf("a")
	has := func() bool {
		_, err := w.machine("b").holder.entries.Get(at(bucket), key, nil)
		return !errors.Is(err, entries.ErrMiss)
	}
	for range 2 {
		if _, err := c.Set(t.Context(), "b", key, []byte("v"), Options{}); err != nil || !has() {
			t.Fatalf("written: %v; the other has it: %v", err, has())
		}
		o := w.overview()
		i := slices.IndexFunc(o.Members, func(m cache.Member) bool { return m.Node == "b" })
		if err := client.Direct(w.meta, w.machine("a").session).Call(t.Context(), cache.OpDistrust, cache.Distrust{Session: o.Members[i].Session, Fresh: o.Members[i].Fresh}, nil); err != nil {
			t.Fatal(err)
		}
		w.settled(2)
		if has() {
			t.Error("a copy is left of who was distrusted")
		}
		await(t, func() error { // the owner has heard of it too
			if v := w.machine("a").holder.view.Load(); !v.known(v.version) || v.version < w.overview().Version {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// TestWatch tells what happens on all machines, each thing once.
func TestWatch(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	c := w.client(0)
	ctx := t.Context()
	w.make(c, "b", 2)
	watch, err := c.Watch(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	const n = 50
	for i := range n {
		if _, err := c.Set(ctx, "b", fmt.Sprint(i), nil, Options{}); err != nil {
			t.Fatal(err)
		}
		want(t, "deleting", c.Delete(ctx, "b", fmt.Sprint(i), 0), nil)
	}
	told := make(map[string]int)
	for range 2 * n {
		e, err := watch.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		told[fmt.Sprint(e.Change, " ", e.Key)]++
	}
	for i := range n {
		for _, change := range []Change{WasSet, WasDeleted} {
			if k := told[fmt.Sprint(change, " ", i)]; k != 1 {
				t.Errorf("change %d of %d is told %d times", change, i, k)
			}
		}
	}
	want(t, "removing", c.Remove(ctx, "b"), nil)
	for {
		if _, err := watch.Next(ctx); err != nil {
			want(t, "watching what was removed", err, meta.NotExist)
			break
		}
	}
}

// FuzzRequest gives a holder arbitrary requests, as others may send them.
func FuzzRequest(f *testing.F) {
	for o := opGet; o <= opCopyExpire; o++ {
		f.Add(uint8(o), uint64(1), "k", []byte("v"), int64(5))
	}
	f.Fuzz(func(t *testing.T, o uint8, bucket uint64, key string, value []byte, n int64) {
		w := newWorld(t, "a")
		c := w.client(0)
		w.make(c, "b", 1)
		h := w.machine("a").holder
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		h.do(ctx, newParty(), &request{Op: op(o), Bucket: bucket, Key: key, Value: value, TTL: time.Duration(n), If: uint64(n), By: n, From: uint64(n), Limit: int(n), Version: uint64(n), NoWait: true})
		if _, err := c.Get(t.Context(), "b", "other"); !errors.Is(err, meta.NotExist) {
			t.Errorf("afterwards: %v", err)
		}
	})
}
