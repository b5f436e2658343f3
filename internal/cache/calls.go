package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dos/meta"
	"dos/meta/cache"
)

// An Entry is what is held under a key.
type Entry struct {
	Value   []byte
	Size    int           // of the value, in bytes
	Version uint64        // never the same for another value
	TTL     time.Duration // what is left; 0: it does not expire
}

// Options say how a value is written. The zero Options overwrite what is there.
type Options struct {
	// TTL is how long the entry lives; 0: as the bucket says, Forever: it does not expire.
	TTL     time.Duration
	Keep    bool   // it lives as long as what was there was to
	Add     bool   // meta.Exist if there is an entry
	Replace bool   // meta.NotExist unless there is one
	If      uint64 // the version that must be there, else it is meta.Conflict, or meta.NotExist
}

// Get returns the entry under a key; meta.NotExist is a miss.
func (c *Client) Get(ctx context.Context, bucket, key string) (Entry, error) {
	a, _, err := c.call(ctx, bucket, &request{Op: opGet, Key: key})
	return a.entry(), err
}

// Stat is Get without the value, and counts as no read.
func (c *Client) Stat(ctx context.Context, bucket, key string) (Entry, error) {
	a, _, err := c.call(ctx, bucket, &request{Op: opStat, Key: key})
	return a.entry(), err
}

// Find is Stat, and returns what the bucket is then; without an ID if that is not known.
// Who answers for the key knows of each change of the bucket that has returned.
func (c *Client) Find(ctx context.Context, bucket, key string) (cache.Bucket, Entry, error) {
	a, _, err := c.call(ctx, bucket, &request{Op: opStat, Key: key})
	v := c.view.Load()
	if a.Known == 0 || v.version < a.Known {
		b, e := c.Bucket(ctx, bucket)
		if e != nil {
			return cache.Bucket{}, Entry{}, e
		}
		return b, a.entry(), err
	}
	return v.buckets[v.names[bucket]], a.entry(), err
}

func (a *answer) entry() Entry { return Entry{a.Value, a.Size, a.Version, a.TTL} }

// check refuses what there cannot be an entry for.
func check(key string, size int) error {
	switch {
	case key == "":
		return fmt.Errorf("cache: an empty key: %w", meta.Invalid)
	case len(key) > cache.KeyMax:
		return fmt.Errorf("cache: key of %d bytes, at most %d: %w", len(key), cache.KeyMax, meta.TooLarge)
	case size > cache.ValueMax:
		return fmt.Errorf("cache: value of %d bytes, at most %d: %w", size, cache.ValueMax, meta.TooLarge)
	}
	return nil
}

// Set writes a value, of which nobody has what was there before when it returns. It
// returns the version of the entry; 0 if that was lost at once.
func (c *Client) Set(ctx context.Context, bucket, key string, value []byte, o Options) (version uint64, err error) {
	if err := check(key, len(value)); err != nil {
		return 0, err
	}
	req := &request{Op: opSet, Key: key, Value: value, TTL: o.TTL, Keep: o.Keep, Add: o.Add, Replace: o.Replace, If: o.If}
	if o.Add || o.Replace || o.If != 0 {
		a, _, err := c.call(ctx, bucket, req)
		return a.Version, err
	}
	a, err := c.send(ctx, bucket, req)
	return a.Version, err
}

// Delete removes the entry under a key, if version is 0 or its own, else it is
// meta.Conflict; meta.NotExist if there is none. When it returns either, nobody has it.
func (c *Client) Delete(ctx context.Context, bucket, key string, version uint64) error {
	if err := check(key, 0); err != nil {
		return err
	}
	req := &request{Op: opDelete, Key: key, If: version}
	if version != 0 {
		_, _, err := c.call(ctx, bucket, req)
		return err
	}
	_, err := c.send(ctx, bucket, req)
	return err
}

// Expire changes how long an entry lives from now; 0: it does not expire. Its version
// stays.
func (c *Client) Expire(ctx context.Context, bucket, key string, ttl time.Duration) error {
	_, _, err := c.call(ctx, bucket, &request{Op: opExpire, Key: key, TTL: ttl})
	return err
}

// Incr adds to the decimal number that the entry under a key is, 0 if there is none, and
// returns the sum. The entry keeps its time. What is no number is meta.Invalid.
func (c *Client) Incr(ctx context.Context, bucket, key string, by int64) (int64, error) {
	if err := check(key, 0); err != nil {
		return 0, err
	}
	a, _, err := c.call(ctx, bucket, &request{Op: opIncr, Key: key, By: by})
	return a.Sum, err
}

// A Filling is the right to provide the value of a key, while others who want it wait.
type Filling struct {
	c      *Client
	key    string
	member meta.SessionID
	at     request
}

// Fill returns the entry under a key; if there is none, and nobody is getting it, the
// right to do so, which ends with Commit or Abandon, or with the process; else it waits
// for either. Exactly one of entry, filling and error is there.
//
// Without wait it is meta.WouldWait where it would.
func (c *Client) Fill(ctx context.Context, bucket, key string, wait bool) (Entry, *Filling, error) {
	if err := check(key, 0); err != nil {
		return Entry{}, nil, err
	}
	for {
		req := &request{Op: opFill, Key: key, NoWait: !wait}
		a, out, err := c.call(ctx, bucket, req)
		switch {
		case out == maybe && ctx.Err() == nil:
			continue // a right that got lost ends with the link
		case err != nil && ctx.Err() != nil:
			return Entry{}, nil, context.Cause(ctx)
		case err != nil:
			return Entry{}, nil, err
		case a.Fill == 0:
			return a.entry(), nil, nil
		}
		return Entry{}, &Filling{c, key, a.from, request{Bucket: req.Bucket, Generation: req.Generation, Key: key, Fill: a.Fill}}, nil
	}
}

// Commit writes the value, for which TTL and Keep of the options count. It is
// meta.Conflict if the entry was written or deleted meanwhile, or the right was lost: then
// what the value was made from may be old.
func (f *Filling) Commit(ctx context.Context, value []byte, o Options) (version uint64, err error) {
	if err := check(f.key, len(value)); err != nil {
		f.Abandon(ctx)
		return 0, err
	}
	req := f.at
	req.Op, req.Value, req.TTL = opCommit, value, o.TTL
	a, err := f.ask(ctx, &req)
	return a.Version, err
}

// Abandon lets the next one who waits fill. After Commit it does nothing.
func (f *Filling) Abandon(ctx context.Context) {
	req := f.at
	req.Op = opAbandon
	_, _ = f.ask(ctx, &req) // who cannot be asked has no rights of ours any more
}

// ask asks the member that gave the right.
func (f *Filling) ask(ctx context.Context, req *request) (answer, error) {
	v := f.c.view.Load()
	m, is := v.members[f.member]
	if !is {
		return answer{}, fmt.Errorf("cache: the machine that gave the right to fill is gone: %w", meta.Conflict)
	}
	a, err := f.c.askMember(ctx, m, req)
	switch {
	case errors.Is(err, errNotSent) || err == nil && a.Moved:
		return answer{}, fmt.Errorf("cache: machine %s does not answer for the key any more: %w", m.Node, meta.Conflict)
	case err != nil:
		return answer{}, err
	}
	return a, a.err()
}

// Scan calls visit with keys of a bucket, each that is there all the while at least once.
// What machines that do not answer have is left out.
func (c *Client) Scan(ctx context.Context, bucket string, visit func(key string) (more bool)) error {
	v, err := c.look(ctx)
	if err != nil {
		return err
	}
	b, v, err := c.bucket(ctx, v, bucket)
	if err != nil {
		return err
	}
	for _, m := range v.members {
		for from := uint64(0); ; {
			a, err := c.askMember(ctx, m, &request{Op: opScan, Bucket: b.ID, Generation: b.Generation, From: from, Limit: scanMax})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil || a.Moved || a.Kind != 0 {
				break
			}
			for _, key := range a.Keys {
				if !visit(key) {
					return nil
				}
			}
			if from = a.Next; from == 0 {
				break
			}
		}
	}
	return nil
}

// Stats is what one machine has of a bucket, and what has happened in it there.
type Stats struct {
	Node      string `cbor:"1,keyasint,omitempty"`
	Items     int64  `cbor:"2,keyasint,omitempty"` // copies too
	Bytes     int64  `cbor:"3,keyasint,omitempty"` // of memory they take
	DiskItems int64  `cbor:"4,keyasint,omitempty"` // of the items, those with values on disk
	DiskBytes int64  `cbor:"5,keyasint,omitempty"`
	Hits      uint64 `cbor:"6,keyasint,omitempty"`
	Misses    uint64 `cbor:"7,keyasint,omitempty"`
	Evictions uint64 `cbor:"8,keyasint,omitempty"`
	Expired   uint64 `cbor:"9,keyasint,omitempty"`
	Used      int64  `cbor:"10,keyasint,omitempty"` // memory of all entries of the machine, in bytes
	Limit     int64  `cbor:"11,keyasint,omitempty"`
	Away      bool   `cbor:"12,keyasint,omitempty"` // it does not answer
}

// Stats asks each machine, by name.
func (c *Client) Stats(ctx context.Context, bucket string) ([]Stats, error) {
	v, err := c.look(ctx)
	if err != nil {
		return nil, err
	}
	b, v, err := c.bucket(ctx, v, bucket)
	if err != nil {
		return nil, err
	}
	var list []Stats
	for _, m := range v.byName() {
		a, err := c.askMember(ctx, m, &request{Op: opStats, Bucket: b.ID, Generation: b.Generation})
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil || a.Stats == nil:
			list = append(list, Stats{Node: m.Node, Away: true})
		default:
			list = append(list, *a.Stats)
		}
	}
	return list, nil
}
