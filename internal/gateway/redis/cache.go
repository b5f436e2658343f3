package redis

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dos/internal/cache"
	"dos/meta"
	metacache "dos/meta/cache"
	"dos/meta/kv"
)

// Entries are what database 1 needs (internal/cache.Client).
type Entries interface {
	Make(ctx context.Context, req metacache.Make) error
	Bucket(ctx context.Context, name string) (metacache.Bucket, error)
	Near(bucket, key string) bool
	Get(ctx context.Context, bucket, key string) (cache.Entry, error)
	Stat(ctx context.Context, bucket, key string) (cache.Entry, error)
	Set(ctx context.Context, bucket, key string, value []byte, o cache.Options) (version uint64, err error)
	Delete(ctx context.Context, bucket, key string, version uint64) error
	Expire(ctx context.Context, bucket, key string, ttl time.Duration) error
	Incr(ctx context.Context, bucket, key string, by int64) (int64, error)
	Scan(ctx context.Context, bucket string, visit func(key string) (more bool)) error
	Stats(ctx context.Context, bucket string) ([]cache.Stats, error)
	Clear(ctx context.Context, bucket string) error
}

// Bucket is where the strings of database 1 are, in /dos/cache.
const Bucket = "redis"

const (
	// togetherMax bounds the steps of a batch that wait for other machines at once.
	togetherMax = 32
	// pageMin is how many keys a part of a scan has at least: all keys are looked at for each.
	pageMin = 1000
)

// A cacheDB is database 1.
type cacheDB struct {
	entries Entries
	uid     uint32
	seed    maphash.Seed
	made    atomic.Bool
}

// NewCache returns the DB of entries, whose bucket will be a user's if it is made.
func NewCache(e Entries, uid uint32) DB {
	return &cacheDB{entries: e, uid: uid, seed: maphash.MakeSeed()}
}

// ready makes the bucket if there is none. What somebody else made is not used: he
// could read it.
func (d *cacheDB) ready(ctx context.Context) error {
	if d.made.Load() {
		return nil
	}
	b, err := d.entries.Bucket(ctx, Bucket)
	if errors.Is(err, meta.NotExist) {
		err = d.entries.Make(ctx, metacache.Make{Name: Bucket, UID: d.uid, GID: d.uid, Mode: 0o700})
		if err == nil || errors.Is(err, meta.Exist) {
			b, err = d.entries.Bucket(ctx, Bucket)
		}
	}
	switch {
	case err != nil:
		return err
	case b.UID != d.uid && b.UID != 0:
		return fmt.Errorf("/dos/cache/%s is of user %d: %w", Bucket, b.UID, meta.Permission)
	}
	d.made.Store(true)
	return nil
}

func (d *cacheDB) Look(ctx context.Context, steps []kv.Step) ([]kv.Outcome, error) {
	return d.Update(ctx, steps, false)
}

func (d *cacheDB) Update(ctx context.Context, steps []kv.Step, whole bool) ([]kv.Outcome, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	for _, s := range steps {
		if whole || s.Must {
			return nil, said("ERR a cache has no transactions: SELECT 0")
		}
	}
	got := make([]kv.Outcome, len(steps))
	if len(steps) > 2 && slices.ContainsFunc(steps, d.far) {
		return got, d.together(ctx, steps, got)
	}
	for i := range steps {
		var err error
		if got[i], err = d.step(ctx, steps[i]); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// far says whether another machine does a step.
func (d *cacheDB) far(s kv.Step) bool { return !d.entries.Near(Bucket, nameOf(s.Key)) }

// lost looks for the bucket again after a failure, in case that somebody removed it.
func (d *cacheDB) lost(err error) error {
	if errors.Is(err, meta.NotExist) {
		d.made.Store(false)
	}
	return err
}

// together does steps at the same time, those about one key in their order.
func (d *cacheDB) together(ctx context.Context, steps []kv.Step, got []kv.Outcome) error {
	n := min(len(steps), togetherMax)
	errs := make([]error, n)
	var work sync.WaitGroup
	for w := range n {
		work.Go(func() {
			for i, s := range steps {
				if maphash.String(d.seed, s.Key)%uint64(n) != uint64(w) {
					continue
				}
				if got[i], errs[w] = d.step(ctx, s); errs[w] != nil {
					return
				}
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// step does a step, also if somebody removed the bucket.
func (d *cacheDB) step(ctx context.Context, s kv.Step) (kv.Outcome, error) {
	out, err := d.once(ctx, s)
	if !errors.Is(err, meta.NotExist) {
		return out, err
	}
	d.made.Store(false)
	if err := d.ready(ctx); err != nil {
		return out, err
	}
	return d.once(ctx, s)
}

// once does a step: in one if the cache can, else with what is there, if that is still
// there afterwards.
func (d *cacheDB) once(ctx context.Context, s kv.Step) (out kv.Outcome, err error) {
	key := nameOf(s.Key)
	simple := !s.Tell && s.Alarm == kv.Whenever && s.Clock != kv.More
	switch {
	case s.Do == kv.Look:
		var e cache.Entry
		if s.Tell {
			e, err = d.entries.Get(ctx, Bucket, key)
		} else {
			e, err = d.entries.Stat(ctx, Bucket, key)
		}
		if errors.Is(err, meta.NotExist) {
			return kv.Outcome{}, nil
		}
		return found(e), err
	case s.Do == kv.Add:
		out.Number, err = d.entries.Incr(ctx, Bucket, key, s.Number)
		if errors.Is(err, meta.Invalid) {
			return kv.Outcome{Why: kv.NoNumber}, nil
		}
		return out, err
	case s.Do == kv.Write && simple && s.If <= kv.Present:
		_, err = d.entries.Set(ctx, Bucket, key, s.Data, options(s))
	case s.Do == kv.Remove && simple && s.If == kv.Always:
		err = d.entries.Delete(ctx, Bucket, key, 0)
	case s.Do == kv.Time && simple && s.If == kv.Always:
		err = d.entries.Expire(ctx, Bucket, key, s.TTL)
	default:
		return d.compare(ctx, key, s)
	}
	anyhow := s.Do == kv.Write && s.If == kv.Always // that there is none is about the bucket
	if errors.Is(err, meta.Exist) || errors.Is(err, meta.NotExist) && !anyhow {
		out.Why, err = kv.NotSo, nil
	}
	return out, err
}

func options(s kv.Step) cache.Options {
	o := cache.Options{TTL: s.TTL, Keep: s.Clock == kv.Keep, Add: s.If == kv.Absent, Replace: s.If == kv.Present}
	if o.TTL == 0 {
		o.TTL = cache.Forever
	}
	return o
}

func found(e cache.Entry) kv.Outcome {
	o := kv.Outcome{Version: e.Version, Size: e.Size, Data: e.Value, Now: e.Version}
	if e.TTL > 0 {
		o.Expires = meta.At(time.Now().Add(e.TTL))
	}
	return o
}

// compare does a step with what it has read, and again if that was another's meanwhile.
func (d *cacheDB) compare(ctx context.Context, key string, s kv.Step) (kv.Outcome, error) {
	for range triesMax {
		e, err := d.entries.Get(ctx, Bucket, key)
		was := err == nil
		if err != nil && !errors.Is(err, meta.NotExist) {
			return kv.Outcome{}, err
		}
		out := found(e)
		if !holds(s, e, was) || !was && (s.Do == kv.Remove || s.Do == kv.Time) {
			out.Why = kv.NotSo
			return out, nil
		}
		o := cache.Options{If: e.Version, Add: !was}
		val := s.Data
		switch s.Do {
		case kv.Remove:
			err = d.entries.Delete(ctx, Bucket, key, e.Version)
		case kv.Append:
			if e.Size+len(s.Data) > kv.ValueMax {
				return kv.Outcome{Why: kv.TooLong}, nil
			}
			val = append(e.Value[:len(e.Value):len(e.Value)], s.Data...)
			out.Number = int64(len(val))
			o.TTL, o.Keep = cache.Forever, was
			_, err = d.entries.Set(ctx, Bucket, key, val, o)
		default:
			if s.Do == kv.Time {
				val = e.Value
			}
			o.TTL, o.Keep = s.TTL, s.Clock == kv.Keep && was
			if s.Clock == kv.More && e.TTL > 0 {
				o.TTL += e.TTL
			}
			if o.TTL == 0 {
				o.TTL = cache.Forever
			}
			_, err = d.entries.Set(ctx, Bucket, key, val, o)
		}
		switch {
		case errors.Is(err, meta.NotExist) && !was: // that is about the bucket
			return kv.Outcome{}, err
		case errors.Is(err, meta.Conflict), errors.Is(err, meta.Exist), errors.Is(err, meta.NotExist):
			continue
		case err != nil:
			return kv.Outcome{}, err
		}
		return out, nil
	}
	return kv.Outcome{}, fmt.Errorf("others change %.80q all the time: %w", key, meta.Busy)
}

// holds says whether a step is to be done with an entry.
func holds(s kv.Step, e cache.Entry, was bool) bool {
	switch s.If {
	case kv.Absent:
		if was {
			return false
		}
	case kv.Present:
		if !was {
			return false
		}
	case kv.Equal:
		if !was || !bytes.Equal(e.Value, s.Match) {
			return false
		}
	case kv.Prefix:
		if !was || !bytes.HasPrefix(e.Value, s.Match) {
			return false
		}
	case kv.Version:
		if e.Version != s.Version {
			return false
		}
	}
	switch s.Alarm {
	case kv.Unset:
		return e.TTL == 0
	case kv.Ticking:
		return e.TTL > 0
	case kv.Later:
		return e.TTL > 0 && s.TTL > e.TTL
	case kv.Sooner:
		return e.TTL == 0 || s.TTL < e.TTL
	}
	return true
}

// Scan finds the next keys in the order of their bytes among all there are, which come
// in none.
func (d *cacheDB) Scan(ctx context.Context, from string, limit int) (keys []string, next string, err error) {
	if err := d.ready(ctx); err != nil {
		return nil, "", err
	}
	limit = max(limit, pageMin)
	var page largest
	known := make(map[string]bool)
	err = d.entries.Scan(ctx, Bucket, func(name string) bool {
		if name < from || known[name] || len(page) == limit && name >= page[0] {
			return true
		}
		known[name] = true
		heap.Push(&page, name)
		if len(page) > limit {
			delete(known, heap.Pop(&page).(string))
		}
		return true
	})
	if err != nil {
		return nil, "", d.lost(err)
	}
	if len(page) == limit {
		next = page[0] + "\x00"
	}
	slices.Sort(page)
	for _, name := range page {
		keys = append(keys, keyOf(name))
	}
	return keys, next, nil
}

// largest is a heap of names, the last in order first.
type largest []string

func (l largest) Len() int           { return len(l) }
func (l largest) Less(i, j int) bool { return l[i] > l[j] }
func (l largest) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *largest) Push(x any)        { *l = append(*l, x.(string)) }
func (l *largest) Pop() any {
	n := len(*l) - 1
	x := (*l)[n]
	*l = (*l)[:n]
	return x
}

// Size counts the entries of all machines.
func (d *cacheDB) Size(ctx context.Context) (n int64, err error) {
	if err := d.ready(ctx); err != nil {
		return 0, err
	}
	b, err := d.entries.Bucket(ctx, Bucket)
	if err != nil {
		return 0, d.lost(err)
	}
	list, err := d.entries.Stats(ctx, Bucket)
	for _, s := range list {
		n += s.Items
	}
	return n / int64(max(1, b.Settings.Replicas)), err // copies are items too
}

func (d *cacheDB) Clear(ctx context.Context) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	return d.lost(d.entries.Clear(ctx, Bucket))
}
