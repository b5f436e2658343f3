package cache

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// A Write says how a value is written. The zero Write overwrites what is there.
type Write struct {
	// Expires is when the entry does; zero: after the bucket's ttl.
	Expires time.Time
	// Keep leaves the entry the time that it has, if it is there.
	Keep bool
	// Add is for O_EXCL: ErrExist if there is an entry.
	Add bool
	// Replace is ErrMiss unless there is an entry.
	Replace bool
	// If is the version that the entry must have, else ErrConflict; without an entry
	// ErrMiss. Zero: any or none.
	If uint64
	// Version is that of the new entry, for copies of what another node wrote:
	// ErrConflict if what is there is not older. Zero: a new one.
	Version uint64
	// Quiet says that watchers are not told.
	Quiet bool
}

// Get returns the entry under key, its value appended to buf; ErrMiss if there is none.
func (c *Cache) Get(at Bucket, key string, buf []byte) (Entry, error) {
	e, id, err := c.inMemory(at, key, buf)
	if id != 0 {
		return c.load(at, key, id, e, buf, false)
	}
	return e, err
}

// inMemory is Get, but that it returns the number of a value that is on disk.
func (c *Cache) inMemory(at Bucket, key string, buf []byte) (e Entry, id uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return Entry{}, 0, err
	}
	return c.get(b, key, buf)
}

func (c *Cache) get(b *bucket, key string, buf []byte) (e Entry, id uint64, err error) {
	r := c.find(b, key)
	if r == 0 {
		b.stats.Misses++
		return Entry{}, 0, ErrMiss
	}
	e = c.stat(r)
	if h := c.pages.at(r); h.state == onDisk {
		return e, uint64(h.more), nil
	}
	b.stats.Hits++
	b.touch(&c.pages, r)
	e.Value = c.pages.value(buf, r)
	return e, 0, nil
}

// Stat returns an entry without its value, and counts as no read of it.
func (c *Cache) Stat(at Bucket, key string) (e Entry, size int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return Entry{}, 0, err
	}
	r := c.find(b, key)
	if r == 0 {
		return Entry{}, 0, ErrMiss
	}
	return c.stat(r), int(c.pages.at(r).size), nil
}

func (c *Cache) stat(r ref) Entry {
	h := c.pages.at(r)
	e := Entry{Version: h.version}
	if h.expires != 0 {
		e.Expires = time.Unix(0, h.expires)
	}
	return e
}

// find returns an entry that has not expired; 0: none.
func (c *Cache) find(b *bucket, key string) ref {
	r := c.table.find(c.hash(b.life, key), b.life, key)
	if r != 0 && c.expired(c.pages.at(r)) {
		c.expire(b, r)
		return 0
	}
	return r
}

// Set writes an entry and returns its version. A value that does not fit is
// ErrTooLarge, and what was there before stays.
func (c *Cache) Set(at Bucket, key string, value []byte, w Write) (version uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return 0, err
	}
	return c.set(b, key, value, w)
}

func (c *Cache) set(b *bucket, key string, value []byte, w Write) (uint64, error) {
	if err := c.fits(b, key, len(value)); err != nil {
		return 0, err
	}
	c.settle(b)
	old := c.find(b, key)
	var expires int64
	switch {
	case old != 0 && w.Keep:
		expires = c.pages.at(old).expires
	case !w.Expires.IsZero():
		expires = w.Expires.UnixNano()
	case b.settings.TTL > 0:
		expires = c.now().Add(b.settings.TTL).UnixNano()
	}
	if err := c.allowed(old, w); err != nil {
		return 0, err
	}
	version := w.Version
	if version == 0 {
		version = c.nextVersion()
	}
	c.version = max(c.version, version)
	var oldVersion uint64
	if old != 0 {
		oldVersion = c.pages.at(old).version
		c.drop(old)
	}
	c.endFill(fillKey{b.life, key})
	r, err := c.insert(b, key, value, version, expires)
	if err != nil {
		if old != 0 {
			b.stats.Evictions++
			c.tell(b, Evict, []byte(key), oldVersion)
		}
		return 0, err
	}
	if !w.Quiet {
		c.tell(b, Set, []byte(key), version)
	}
	if b.settings.Tier == OnDisk {
		c.spill(b, r)
	}
	return version, nil
}

// fits refuses what there can be no room for.
func (c *Cache) fits(b *bucket, key string, value int) error {
	switch {
	case key == "":
		return fmt.Errorf("an empty key: %w", ErrInvalid)
	case len(key) > MaxKey:
		return fmt.Errorf("key of %d bytes, over %d: %w", len(key), MaxKey, ErrTooLarge)
	case value > MaxValue:
		return fmt.Errorf("value of %d bytes, over %d: %w", value, MaxValue, ErrTooLarge)
	}
	if need := cost(len(key), value); b.settings.Max > 0 && need > b.settings.Max {
		return fmt.Errorf("%d bytes in a bucket of %d: %w", need, b.settings.Max, ErrTooLarge)
	}
	return nil
}

// allowed holds a write against the entry that is there; 0: none is.
func (c *Cache) allowed(old ref, w Write) error {
	if old == 0 {
		if w.If != 0 || w.Replace {
			return ErrMiss
		}
		return nil
	}
	h := c.pages.at(old)
	switch {
	case w.Add:
		return ErrExist
	case w.If != 0 && w.If != h.version, w.Version != 0 && w.Version <= h.version:
		return fmt.Errorf("version %d: %w", h.version, ErrConflict)
	}
	return nil
}

// insert makes room and adds an entry, of which there is none.
func (c *Cache) insert(b *bucket, key string, value []byte, version uint64, expires int64) (ref, error) {
	class, more := shape(len(key), len(value))
	for limit := b.settings.Max; limit > 0 && b.stats.Bytes+cost(len(key), len(value)) > limit; {
		r := b.victim()
		if r == 0 {
			break
		}
		c.evict(r)
	}
	pages, err := c.takePages(b, more)
	if err != nil {
		return 0, err
	}
	r, err := c.takeSlot(b, class)
	if err != nil {
		c.pages.releasePages(pages)
		return 0, err
	}
	h := c.pages.at(r)
	*h = header{
		hash: c.hash(b.life, key), version: version, expires: expires,
		life: b.life, more: pages, class: class, state: memory,
	}
	c.pages.write(r, key, value)
	b.enlist(&c.pages, r)
	b.stats.Items++
	b.stats.Bytes += h.cost()
	c.table.add(r, c.mayTake())
	return r, nil
}

// Delete removes the entry under key, if version is zero or its own, else ErrConflict;
// ErrMiss if there is none. A fill of the key that is under way is not taken any more,
// whether or not there was an entry.
func (c *Cache) Delete(at Bucket, key string, version uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return err
	}
	r := c.find(b, key)
	if r == 0 {
		c.endFill(fillKey{b.life, key})
		return ErrMiss
	}
	if h := c.pages.at(r); version != 0 && version != h.version {
		return fmt.Errorf("version %d: %w", h.version, ErrConflict)
	}
	c.endFill(fillKey{b.life, key})
	c.tell(b, Del, []byte(key), c.pages.at(r).version)
	c.drop(r)
	return nil
}

// Forget drops an entry, if it is there, without a word.
func (c *Cache) Forget(at Bucket, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, err := c.enter(at); err == nil {
		if r := c.find(b, key); r != 0 {
			c.drop(r)
		}
	}
}

// Check returns what Set would say of a write now, but for its room.
func (c *Cache) Check(at Bucket, key string, size int, w Write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return err
	}
	if err := c.fits(b, key, size); err != nil {
		return err
	}
	return c.allowed(c.find(b, key), w)
}

// Version gives a version for a write that others are to get first, with Write.Version.
func (c *Cache) Version() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nextVersion()
}

// Expire changes when an entry expires; zero: never. Its version stays.
func (c *Cache) Expire(at Bucket, key string, when time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return err
	}
	r := c.find(b, key)
	if r == 0 {
		return ErrMiss
	}
	h := c.pages.at(r)
	h.expires = 0
	if !when.IsZero() {
		h.expires = when.UnixNano()
	}
	return nil
}

// Incr adds to the decimal number under key, 0 if there is none, and returns the sum.
// The entry keeps its time. What is no number, or would pass 64 bits, is ErrNotNumber.
func (c *Cache) Incr(at Bucket, key string, by int64) (int64, error) {
	for {
		n, e, id, err := c.incr(at, key, by)
		if id == 0 {
			return n, err
		}
		if _, err := c.load(at, key, id, e, nil, true); err != nil && !errors.Is(err, ErrMiss) {
			return 0, err
		}
	}
}

// incr is Incr, but that it returns an entry and the number of its value if that is on disk.
func (c *Cache) incr(at Bucket, key string, by int64) (n int64, e Entry, id uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return 0, Entry{}, 0, err
	}
	if r := c.find(b, key); r != 0 {
		h := c.pages.at(r)
		if h.size > numberMax {
			return 0, Entry{}, 0, ErrNotNumber
		}
		if h.state == onDisk {
			return 0, c.stat(r), uint64(h.more), nil
		}
		if n, err = parse(c.pages.value(nil, r)); err != nil {
			return 0, Entry{}, 0, err
		}
	}
	if n, err = add(n, by); err != nil {
		return 0, Entry{}, 0, err
	}
	_, err = c.set(b, key, strconv.AppendInt(nil, n, 10), Write{Keep: true})
	return n, Entry{}, 0, err
}

// Sum is what Incr would make of the number that a value is.
func Sum(value []byte, by int64) (int64, error) {
	if len(value) > numberMax {
		return 0, ErrNotNumber
	}
	n, err := parse(value)
	if err != nil {
		return 0, err
	}
	return add(n, by)
}

// numberMax is the bytes of the longest number, and a newline.
const numberMax = 21

func parse(text []byte) (int64, error) {
	if len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1] // as echo writes it
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", text, ErrNotNumber)
	}
	return n, nil
}

func add(n, by int64) (int64, error) {
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return 0, fmt.Errorf("%d and %d: %w", n, by, ErrNotNumber)
	}
	return n + by, nil
}

// Scan returns keys of the bucket from about n chains of the table, each of one entry on
// average, and where to go on; 0: that was all. A scan from 0 to the end returns each
// key that is there all the while at least once, unless the node shrinks meanwhile.
func (c *Cache) Scan(at Bucket, from uint64, n int) (keys []string, next uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return nil, 0, err
	}
	for i := from; i < c.table.n; i++ {
		if i-from == uint64(max(1, n)) {
			return keys, i, nil
		}
		for r := *c.table.head(i); r != 0; r = c.pages.at(r).chain {
			if h := c.pages.at(r); h.life == b.life && !c.expired(h) {
				keys = append(keys, string(c.pages.key(r)))
			}
		}
	}
	return keys, 0, nil
}
