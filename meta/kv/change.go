package kv

import (
	"fmt"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// A change is one command's, or one part of a transaction's, on one table.
type change struct {
	tx    *state.Tx
	table Table
}

func begin(tx *state.Tx, table string) (*change, error) {
	t, err := loadTable(tx, table)
	return &change{tx, t}, err
}

// record gives the change the next revision and puts it into the feed.
func (c *change) record(verb Verb, key string, size int) uint64 {
	count, _ := load[counters](c.tx, counterKey)
	count.Rev++
	c.tx.Set(counterKey, state.Marshal(count))
	now := meta.At(c.tx.Now)
	c.tx.Set(number(feed7, count.Rev), state.Marshal(Change{Rev: count.Rev, Verb: verb, Table: c.table.Name, Key: key, Size: size, Time: now}))
	if count.Rev > FeedMax {
		c.tx.Delete(number(feed7, count.Rev-FeedMax))
	}
	c.table.Rev, c.table.Mtime = count.Rev, now
	return count.Rev
}

func (c *change) done() { c.tx.Set(FollowKey(c.table.Name), state.Marshal(c.table)) }

// take removes a row and what belongs to it; the parts of its value stay if they
// are needed still.
func (c *change) take(key string, old value, keepParts bool) {
	c.tx.Delete(valueKey(c.table.Name, key))
	if old.Expires != 0 {
		c.tx.Delete(expireKey(old.Expires, c.table.Name, key))
	}
	if old.Blob != nil && !keepParts {
		for part := range old.Blob.parts() {
			c.tx.Delete(partKey(*old.Blob, part))
		}
	}
	c.table.Count--
	c.table.Bytes -= int64(len(key) + old.Size)
}

// give puts a row. Its time to live begins now.
func (c *change) give(key string, v value) error {
	if v.Expires = 0; v.TTL > 0 {
		v.Expires = meta.At(c.tx.Now.Add(v.TTL))
	}
	return c.lay(key, v)
}

// lay puts a row as it is.
func (c *change) lay(key string, v value) error {
	if v.Expires != 0 {
		c.tx.Set(expireKey(v.Expires, c.table.Name, key), []byte{})
	}
	c.tx.Set(valueKey(c.table.Name, key), state.Marshal(v))
	c.table.Count++
	c.table.Bytes += int64(len(key) + v.Size)
	if c.table.Quota > 0 && c.table.Bytes > c.table.Quota {
		return fmt.Errorf("table %q would have %d bytes, its quota is %d: %w", c.table.Name, c.table.Bytes, c.table.Quota, meta.Quota)
	}
	return nil
}

// at returns the row of a key, refused if its version is not the one that it must be.
func (c *change) at(key string, only *uint64) (value, bool, error) {
	old, ok := load[value](c.tx, valueKey(c.table.Name, key))
	if only != nil && *only != old.Version {
		return old, ok, fmt.Errorf("%.80q has version %d, not %d: %w", key, old.Version, *only, meta.Conflict)
	}
	return old, ok, nil
}

func put(tx *state.Tx, req Put) (Written, error) {
	c, err := begin(tx, req.Table)
	if err != nil {
		return Written{}, err
	}
	if err := checkKey(req.Key); err != nil {
		return Written{}, err
	}
	size := len(req.Data)
	switch {
	case req.Blob != nil && size > 0, isDir(req.Key) && (req.Blob != nil || size > 0):
		return Written{}, fmt.Errorf("%.80q: bytes and parts, or a directory with bytes: %w", req.Key, meta.Invalid)
	case size > InlineMax:
		return Written{}, fmt.Errorf("%.80q: %d bytes in one piece, at most %d: %w", req.Key, size, InlineMax, meta.TooLarge)
	case req.TTL != nil && (*req.TTL < 0 || *req.TTL > ttlMax):
		return Written{}, fmt.Errorf("%.80q: a time to live of %v: %w", req.Key, *req.TTL, meta.Invalid)
	}
	old, was, err := c.at(req.Key, req.Only)
	switch {
	case err != nil:
		return Written{}, err
	case was && isDir(req.Key):
		return Written{}, meta.Exist
	case !was:
		if err := place(tx, req.Table, req.Key); err != nil {
			return Written{}, err
		}
		old = value{UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777, TTL: c.table.TTL}
		if isDir(req.Key) {
			old.TTL = 0
			if below(tx, req.Table, req.Key) {
				return Written{}, meta.Exist
			}
		}
	default:
		c.take(req.Key, old, false)
	}
	if req.TTL != nil {
		old.TTL = *req.TTL
	}
	if req.Blob != nil {
		if err := adopt(tx, req.Blob); err != nil {
			return Written{}, err
		}
		size = req.Blob.Size
	}
	old.Data, old.Blob, old.Size, old.Mtime, old.Dir = req.Data, req.Blob, size, meta.At(tx.Now), isDir(req.Key)
	old.Version = c.record(WasPut, req.Key, size)
	if err := c.give(req.Key, old); err != nil {
		return Written{}, err
	}
	c.done()
	return Written{old.Version}, nil
}

// ttlMax keeps the time when something goes within what a number holds.
const ttlMax = 100 * 365 * 24 * time.Hour

func remove(tx *state.Tx, req Delete) (Written, error) {
	c, err := begin(tx, req.Table)
	if err != nil {
		return Written{}, err
	}
	if err := checkKey(req.Key); err != nil {
		return Written{}, err
	}
	old, was, err := c.at(req.Key, req.Only)
	switch {
	case err != nil:
		return Written{}, err
	case isDir(req.Key) && below(tx, req.Table, req.Key):
		return Written{}, meta.NotEmpty
	case !was:
		return Written{}, meta.NotExist
	}
	c.take(req.Key, old, false)
	rev := c.record(WasDeleted, req.Key, 0)
	c.done()
	return Written{rev}, nil
}

func rename(tx *state.Tx, req Rename) (Written, error) {
	from, err := begin(tx, req.Table)
	if err != nil {
		return Written{}, err
	}
	if err := checkKey(req.ToKey); err != nil {
		return Written{}, err
	}
	if isDir(req.Key) || isDir(req.ToKey) {
		return Written{}, fmt.Errorf("directories stay where they are: %w", meta.Unsupported)
	}
	v, was, _ := from.at(req.Key, nil)
	if !was {
		return Written{}, meta.NotExist
	}
	to := from
	if req.ToTable != req.Table {
		if to, err = begin(tx, req.ToTable); err != nil {
			return Written{}, err
		}
	}
	old, over, _ := to.at(req.ToKey, nil)
	switch {
	case over && req.NoReplace:
		return Written{}, meta.Exist
	case req.Table == req.ToTable && req.Key == req.ToKey:
		return Written{v.Version}, nil
	}
	from.take(req.Key, v, true)
	from.record(WasDeleted, req.Key, 0)
	if over {
		to.take(req.ToKey, old, false)
	} else if err := place(tx, req.ToTable, req.ToKey); err != nil {
		return Written{}, err
	}
	v.Version = to.record(WasPut, req.ToKey, v.Size)
	if err := to.give(req.ToKey, v); err != nil {
		return Written{}, err
	}
	from.done()
	to.done()
	return Written{v.Version}, nil
}

func set(tx *state.Tx, req Set) (none, error) {
	c, err := begin(tx, req.Table)
	if err != nil {
		return none{}, err
	}
	v, was, _ := c.at(req.Key, nil)
	switch {
	case !was:
		return none{}, meta.NotExist
	case req.TTL != nil && (isDir(req.Key) || *req.TTL < 0 || *req.TTL > ttlMax):
		return none{}, fmt.Errorf("%.80q: a time to live of %v: %w", req.Key, *req.TTL, meta.Invalid)
	}
	assign(&v.UID, req.UID)
	assign(&v.GID, req.GID)
	if assign(&v.Mode, req.Mode); v.Mode > 0o7777 {
		return none{}, fmt.Errorf("mode %o: %w", v.Mode, meta.Invalid)
	}
	assign(&v.TTL, req.TTL)
	if req.TTL == nil && !req.Touch {
		tx.Set(valueKey(req.Table, req.Key), state.Marshal(v))
		return none{}, nil
	}
	c.take(req.Key, v, true)
	if err := c.give(req.Key, v); err != nil {
		return none{}, err
	}
	c.done()
	return none{}, nil
}

func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func expire(tx *state.Tx, _ none) (Expired, error) {
	end := number(expires7, uint64(meta.At(tx.Now))+1)
	n := 0
	for k := range tx.Scan([]byte(expires7), end) {
		if n++; n > expireMax {
			return Expired{More: true}, nil
		}
		table, key := splitKey(string(k[len(expires7)+8:]))
		c, err := begin(tx, table)
		if err != nil {
			panic(fmt.Sprintf("kv: %q of table %q is to expire: %v", key, table, err))
		}
		v, was, _ := c.at(key, nil)
		if !was {
			panic(fmt.Sprintf("kv: %q of table %q is to expire, and is not there", key, table))
		}
		c.take(key, v, false)
		c.record(WasExpired, key, 0)
		c.done()
	}
	return Expired{}, nil
}
