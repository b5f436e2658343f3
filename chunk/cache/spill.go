package cache

import "errors"

const (
	// overdraft is how far entries whose values go to disk may take the pages above the
	// limit: their keys need slots just when there are none. It is part of DiskMemory.
	overdraft = 2 << 20
	// forgetStep is how many entries are dropped with the lock held.
	forgetStep = 1024
)

// A Tier says where the values of a bucket are.
type Tier uint8

// The tiers. A value on disk has its key in memory, with all that is to be known of it.
const (
	InMemory Tier = iota
	OnDisk        // values go to disk at once
	Both          // values go to disk when memory evicts them, and come back when read
)

// spill moves an entry's value to disk, if the bucket wants it, there is a disk that
// keeps up, and it makes room.
func (c *Cache) spill(b *bucket, r ref) bool {
	h := c.pages.at(r)
	key := c.pages.key(r)
	class, _ := shape(len(key), 0)
	if c.disk == nil || b.settings.Tier == InMemory || h.state != memory ||
		int64(slots[class]) >= h.cost() || !c.disk.room(int(h.size)) {
		return false
	}
	to, ok := c.pages.slot(class)
	if !ok {
		if len(c.pages.free) == 0 && c.pages.resident()+pageSize > c.limit+overdraft {
			return false
		}
		i, err := c.pages.take()
		if err != nil {
			return false
		}
		c.pages.cutUp(i, class)
		to, _ = c.pages.slot(class)
	}
	id, ok := c.disk.put(c.pages.value(nil, r))
	if !ok {
		c.pages.freeSlot(to)
		return false
	}
	g := c.pages.at(to)
	*g = header{
		hash: h.hash, version: h.version, expires: h.expires, life: h.life,
		class: class, state: onDisk,
	}
	c.pages.write(to, string(key), nil)
	g.size, g.more = h.size, ref(id)
	c.drop(r)
	c.onDisk.push(&c.pages, to)
	c.keys += g.cost()
	b.stats.DiskItems++
	b.stats.DiskBytes += int64(g.size)
	c.table.add(to, false)
	return true
}

// load reads the value of an entry that find found on disk under the number id, without
// the lock. It goes back to memory if that is what the bucket does, or if toMemory.
func (c *Cache) load(at Bucket, key string, id uint64, e Entry, buf []byte, toMemory bool) (Entry, error) {
	n := len(buf)
	value, err := c.disk.value(id, buf)
	c.mu.Lock()
	defer c.mu.Unlock()
	b, gone := c.enter(at)
	if gone != nil {
		return Entry{}, gone
	}
	r := c.find(b, key)
	same := r != 0 && c.pages.at(r).state == onDisk && uint64(c.pages.at(r).more) == id
	if err != nil {
		b.stats.Misses++
		if same {
			c.evict(r)
		}
		return Entry{}, ErrMiss
	}
	b.stats.Hits++
	e.Value = value
	if same && (toMemory || b.settings.Tier != OnDisk && b.settings.fits(len(key), len(value)-n)) {
		expires := c.pages.at(r).expires
		c.drop(r)
		if _, err := c.insert(b, key, value[n:], e.Version, expires); err != nil && !errors.Is(err, ErrTooLarge) {
			return Entry{}, err
		}
	}
	return e, nil
}

// fits says whether the bucket can have such an entry in memory at all.
func (s *Settings) fits(key, value int) bool { return s.Max == 0 || cost(key, value) <= s.Max }

// settle evicts what overdrew the limit.
func (c *Cache) settle(b *bucket) {
	for range 2 {
		if c.pages.resident() <= c.limit {
			return
		}
		if len(c.pages.free) > 0 {
			c.pages.trim(0)
			continue
		}
		r := c.victim(b)
		if r == 0 {
			return
		}
		c.emptyPage(r)
	}
}

// forget drops some of the entries whose values had numbers below first, which are gone.
func (c *Cache) forget(first uint64) (done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range forgetStep {
		r := c.onDisk.first
		if c.closed || r == 0 || uint64(c.pages.at(r).more) >= first {
			return true
		}
		c.evict(r)
	}
	return false
}
