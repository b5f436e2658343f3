package redis

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"dos/internal/cache"
	"dos/meta"
	metacache "dos/meta/cache"
	"dos/meta/kv"
)

// fakeEntries is a bucket in a map. It implements Entries. slow is how long others take to answer.
type fakeEntries struct {
	slow time.Duration

	mu   sync.Mutex
	made bool
	n    uint64
	all  map[string]fakeEntry // guarded by mu
}

type fakeEntry struct {
	cache.Entry
	over time.Time
}

func (f *fakeEntries) Make(context.Context, metacache.Make) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made {
		return meta.Exist
	}
	f.made, f.all = true, make(map[string]fakeEntry)
	return nil
}

func (f *fakeEntries) remove() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made, f.all = false, nil
}

func (f *fakeEntries) Bucket(context.Context, string) (b metacache.Bucket, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.made {
		return b, meta.NotExist
	}
	b.Settings.Replicas = 1
	return b, nil
}

func (f *fakeEntries) Near(_, _ string) bool { return f.slow == 0 }

func (f *fakeEntries) Get(_ context.Context, _, key string) (cache.Entry, error) {
	time.Sleep(f.slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.get(key)
}

func (f *fakeEntries) get(key string) (cache.Entry, error) {
	e, is := f.all[key]
	if !is || !e.over.IsZero() && !e.over.After(time.Now()) {
		return cache.Entry{}, meta.NotExist
	}
	if !e.over.IsZero() {
		e.TTL = time.Until(e.over)
	}
	return e.Entry, nil
}

func (f *fakeEntries) Stat(ctx context.Context, bucket, key string) (cache.Entry, error) {
	e, err := f.Get(ctx, bucket, key)
	e.Value = nil
	return e, err
}

func (f *fakeEntries) Set(_ context.Context, _, key string, value []byte, o cache.Options) (uint64, error) {
	time.Sleep(f.slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	old, err := f.get(key)
	switch {
	case !f.made, o.Replace && err != nil, o.If != 0 && err != nil:
		return 0, meta.NotExist
	case o.Add && err == nil:
		return 0, meta.Exist
	case o.If != 0 && old.Version != o.If:
		return 0, meta.Conflict
	}
	f.n++
	e := fakeEntry{Entry: cache.Entry{Value: append([]byte(nil), value...), Size: len(value), Version: f.n}}
	switch {
	case o.Keep && err == nil:
		e.over = f.all[key].over
	case o.TTL > 0:
		e.over = time.Now().Add(o.TTL)
	}
	f.all[key] = e
	return f.n, nil
}

func (f *fakeEntries) Delete(_ context.Context, _, key string, version uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.get(key)
	switch {
	case err != nil:
		return err
	case version != 0 && e.Version != version:
		return meta.Conflict
	}
	delete(f.all, key)
	return nil
}

func (f *fakeEntries) Expire(_ context.Context, _, key string, ttl time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.get(key); err != nil {
		return err
	}
	e := f.all[key]
	if e.over = (time.Time{}); ttl > 0 {
		e.over = time.Now().Add(ttl)
	}
	f.all[key] = e
	return nil
}

func (f *fakeEntries) Incr(ctx context.Context, bucket, key string, by int64) (int64, error) {
	f.mu.Lock()
	e, err := f.get(key)
	made := f.made
	f.mu.Unlock()
	var n int64
	if !made {
		return 0, meta.NotExist
	}
	if err == nil {
		if n, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
			return 0, meta.Invalid
		}
	}
	_, err = f.Set(ctx, bucket, key, strconv.AppendInt(nil, n+by, 10), cache.Options{Keep: true})
	return n + by, err
}

func (f *fakeEntries) Scan(_ context.Context, _ string, visit func(string) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.all {
		if !visit(key) {
			break
		}
	}
	return nil
}

func (f *fakeEntries) Stats(context.Context, string) ([]cache.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []cache.Stats{{Items: int64(len(f.all))}}, nil
}

func (f *fakeEntries) Clear(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.all)
	return nil
}

// Somebody may remove the bucket: it is made again.
func TestBucketGone(t *testing.T) {
	f := new(fakeEntries)
	db := NewCache(f, 0)
	for _, s := range []kv.Step{{Do: kv.Write, Key: "a"}, {Do: kv.Add, Key: "n", Number: 3}, {Do: kv.Append, Key: "x", Data: []byte("y")}} {
		for range 2 {
			got, err := db.Update(t.Context(), []kv.Step{s}, false)
			if err != nil || got[0].Why != kv.Fine {
				t.Errorf("%+v: %+v, %v", s, got, err)
			}
			f.remove()
		}
	}
}

// Steps that are far away are done together, those of one key in their order.
func TestTogether(t *testing.T) {
	f := &fakeEntries{slow: 2 * time.Millisecond}
	db := NewCache(f, 0)
	var steps []kv.Step
	for i := range 200 {
		steps = append(steps, kv.Step{Do: kv.Write, Key: strconv.Itoa(i % 50), Data: []byte(strconv.Itoa(i))})
	}
	began := time.Now()
	if _, err := db.Update(t.Context(), steps, false); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 200*f.slow {
		t.Errorf("200 steps of %v took %v", f.slow, took)
	}
	var keys []string
	for from := ""; ; {
		part, next, err := db.Scan(t.Context(), from, 7)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, part...)
		if from = next; from == "" {
			break
		}
	}
	if len(keys) != 50 {
		t.Errorf("%d keys", len(keys))
	}
	for i := range 50 {
		got, err := db.Look(t.Context(), []kv.Step{{Key: strconv.Itoa(i), Tell: true}})
		if err != nil || string(got[0].Data) != strconv.Itoa(150+i) {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
}

// A scan of more keys than a part has finds each once.
func TestScanParts(t *testing.T) {
	f := new(fakeEntries)
	db := NewCache(f, 0)
	const n = 3*pageMin + 7
	for i := range n {
		if _, err := db.Update(t.Context(), []kv.Step{{Do: kv.Write, Key: strconv.Itoa(i)}}, false); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	parts := 0
	for from := ""; ; parts++ {
		keys, next, err := db.Scan(t.Context(), from, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if seen[key] {
				t.Fatalf("%s is there twice", key)
			}
			seen[key] = true
		}
		if from = next; from == "" {
			break
		}
	}
	if len(seen) != n || parts < 3 {
		t.Errorf("%d keys in %d parts", len(seen), parts)
	}
}
