package cache

import (
	"context"
	"errors"
)

type fillKey struct {
	life uint32
	key  string
}

// A fill is a value that somebody is getting.
type fill struct {
	done chan struct{} // closed when others need not wait for it any more
}

// A Fill is the right to provide the value of a key, while others who want it wait.
// It ends with Commit or Abandon, and when somebody else writes or deletes the entry.
type Fill struct {
	c    *Cache
	at   Bucket
	key  fillKey
	fill *fill
}

// Fill returns the entry under key; if there is none, and nobody is getting it, the
// right to do so; else it waits for either. Exactly one of entry, fill and error is
// there. ErrClosed and ErrStale end the wait as well as ctx does.
func (c *Cache) Fill(ctx context.Context, at Bucket, key string, buf []byte) (Entry, *Fill, error) {
	for {
		e, f, wait, id, err := c.tryFill(at, key, buf)
		if id != 0 {
			if e, err := c.load(at, key, id, e, buf, false); !errors.Is(err, ErrMiss) {
				return e, nil, err
			}
			continue
		}
		if wait == nil {
			return e, f, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Entry{}, nil, ctx.Err()
		}
	}
}

func (c *Cache) tryFill(at Bucket, key string, buf []byte) (e Entry, f *Fill, wait <-chan struct{}, id uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return Entry{}, nil, nil, 0, err
	}
	if err := c.fits(b, key, 0); err != nil {
		return Entry{}, nil, nil, 0, err
	}
	k := fillKey{b.life, key}
	// Who waits is counted as a miss or a hit once, when it is over.
	if other := c.fills[k]; other != nil && c.find(b, key) == 0 {
		return Entry{}, nil, other.done, 0, nil
	}
	e, id, err = c.get(b, key, buf)
	if err == nil {
		return e, nil, nil, id, nil
	}
	c.fills[k] = &fill{done: make(chan struct{})}
	return Entry{}, &Fill{c: c, at: at, key: k, fill: c.fills[k]}, nil, 0, nil
}

// TryFill is Fill, but that it returns what it would wait for.
func (c *Cache) TryFill(at Bucket, key string, buf []byte) (Entry, *Fill, <-chan struct{}, error) {
	for {
		e, f, wait, id, err := c.tryFill(at, key, buf)
		if id == 0 {
			return e, f, wait, err
		}
		if e, err := c.load(at, key, id, e, buf, false); !errors.Is(err, ErrMiss) {
			return e, nil, nil, err
		}
	}
}

// endFill takes the right to provide a value away. The caller holds mu.
func (c *Cache) endFill(k fillKey) {
	if f := c.fills[k]; f != nil {
		delete(c.fills, k)
		close(f.done)
	}
}

// Commit writes the value. If the entry was written or deleted meanwhile, or the
// bucket cleared, what the value was made from may be old: ErrConflict or ErrStale.
func (f *Fill) Commit(value []byte, w Write) (version uint64, err error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	b, err := f.c.enter(f.at)
	if err != nil {
		return 0, err
	}
	if f.c.fills[f.key] != f.fill {
		return 0, ErrConflict
	}
	// Also if it is refused: then the next one fills.
	defer f.c.endFill(f.key)
	return f.c.set(b, f.key.key, value, w)
}

// Valid reports whether Commit would be taken: nobody has written or deleted the entry
// since, nor cleared the bucket.
func (f *Fill) Valid() bool {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.c.fills[f.key] == f.fill
}

// Abandon lets the next one who waits fill. After Commit it does nothing.
func (f *Fill) Abandon() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.fills[f.key] == f.fill {
		f.c.endFill(f.key)
	}
}
