package cache

import (
	"fmt"
)

const (
	// tries is how many entries are evicted by policy for one page or slot, before all
	// of a page is: entries of other sizes make no room for this one.
	tries = 16
	// stepPages is how many pages are emptied with the lock held, when memory is given back.
	stepPages = 16
)

// SetLimit changes the limit. If less is allowed than is in use, entries are evicted
// until it is met, in short steps between which others get in. Limits below MinLimit
// are ErrInvalid.
func (c *Cache) SetLimit(bytes int64) error {
	c.mu.Lock()
	reserve := c.reserve
	if bytes-reserve >= MinLimit {
		c.limit = bytes - reserve
	}
	c.mu.Unlock()
	if bytes-reserve < MinLimit {
		return fmt.Errorf("limit of %d bytes, less than %d: %w", bytes, MinLimit+reserve, ErrInvalid)
	}
	for {
		done, err := c.step()
		if done || err != nil {
			return err
		}
	}
}

// step gives some memory back. It is done when the limit is met.
func (c *Cache) step() (done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return true, ErrClosed
	}
	for range stepPages {
		over := c.pages.resident() - c.limit
		if over <= 0 {
			return true, nil
		}
		if n := len(c.pages.free); n > 0 {
			c.pages.trim(max(0, n-int((over+pageSize-1)/pageSize)))
			continue
		}
		r := c.victim(nil)
		if r == 0 {
			return true, nil // the table alone
		}
		c.emptyPage(r)
	}
	return false, nil
}

// Memory returns the bytes of real memory that entries, their table and the disk tier
// take, and the limit.
func (c *Cache) Memory() (used, limit int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pages.resident() + c.reserve, c.limit + c.reserve
}

// victim returns what the node evicts next for a write to b, which may be nil: what is
// dead, else of the largest of a few buckets.
func (c *Cache) victim(b *bucket) ref {
	if c.dead.first != 0 {
		return c.dead.first
	}
	if c.keys > c.limit/4 {
		return c.onDisk.first
	}
	largest := b
	for range min(4, len(c.turns)) {
		c.turn = (c.turn + 1) % len(c.turns)
		if o := c.turns[c.turn]; largest == nil || o.stats.Bytes > largest.stats.Bytes {
			largest = o
		}
	}
	if largest != nil {
		if r := largest.victim(); r != 0 {
			return r
		}
	}
	for _, o := range c.turns { // only when the node is all but empty
		if r := o.victim(); r != 0 {
			return r
		}
	}
	return c.onDisk.first
}

// mayTake says whether another page is within the limit.
func (c *Cache) mayTake() bool {
	return len(c.pages.free) > 0 || c.pages.resident()+pageSize <= c.limit
}

// takePage returns a page, for a write to b, evicting what must go.
// What is tried of tries already is the caller's.
func (c *Cache) takePage(b *bucket, tried int) (uint32, error) {
	for n := tried; !c.mayTake(); n++ {
		r := c.victim(b)
		switch {
		case r == 0:
			return 0, fmt.Errorf("nothing to evict below %d bytes: %w", c.limit, ErrTooLarge)
		case n < tries:
			c.evict(r)
		default:
			c.emptyPage(r)
		}
	}
	return c.pages.take()
}

// takeSlot returns a slot, for a write to b, evicting what must go.
func (c *Cache) takeSlot(b *bucket, class uint8) (ref, error) {
	n := 0
	for ; n < tries; n++ {
		if r, ok := c.pages.slot(class); ok {
			return r, nil
		}
		if c.mayTake() {
			break
		}
		r := c.victim(b)
		if r == 0 {
			break
		}
		c.evict(r)
	}
	if r, ok := c.pages.slot(class); ok {
		return r, nil
	}
	i, err := c.takePage(b, n)
	if err != nil {
		return 0, err
	}
	c.pages.cutUp(i, class)
	r, _ := c.pages.slot(class)
	return r, nil
}

// takePages returns n pages linked to each other; 0 if n is 0.
func (c *Cache) takePages(b *bucket, n int) (ref, error) {
	var first ref
	for range n {
		i, err := c.takePage(b, 0)
		if err != nil {
			c.pages.releasePages(first)
			return 0, err
		}
		m := ref(i) << pageBits
		*c.pages.link(m), first = first, m
	}
	return first, nil
}

// emptyPage evicts all that is in the page of the entry at r, which is free then.
func (c *Cache) emptyPage(r ref) {
	i := uint32(r >> pageBits)
	pg := c.pages.page[i]
	for n := uint16(0); pg.used > 0; n++ {
		if at := c.pages.nth(i, n); c.pages.at(at).state != free {
			pg.used--
			c.evict(at)
		}
	}
}

// evict drops an entry for room, or moves it to disk.
func (c *Cache) evict(r ref) {
	h := c.pages.at(r)
	b := c.lives[h.life]
	if b == nil {
		c.drop(r)
		return
	}
	if c.expired(h) {
		c.expire(b, r)
		return
	}
	if c.spill(b, r) {
		return
	}
	b.stats.Evictions++
	c.tell(b, Evict, c.pages.key(r), h.version)
	c.drop(r)
}

// expire drops an entry whose time is over.
func (c *Cache) expire(b *bucket, r ref) {
	b.stats.Expired++
	c.tell(b, Expire, c.pages.key(r), c.pages.at(r).version)
	c.drop(r)
}

// drop frees an entry without a word.
func (c *Cache) drop(r ref) {
	h := c.pages.at(r)
	b := c.lives[h.life]
	switch {
	case h.state == onDisk:
		c.onDisk.remove(&c.pages, r)
		c.keys -= h.cost()
		if b != nil {
			b.stats.DiskItems--
			b.stats.DiskBytes -= int64(h.size)
		}
	case b == nil:
		c.dead.remove(&c.pages, r)
	default:
		b.list(h.level).remove(&c.pages, r)
		b.stats.Items--
		b.stats.Bytes -= h.cost()
	}
	c.table.remove(r)
	c.pages.release(r)
}

// Sweep looks at up to n chains of the table, each of one entry on average, and drops
// what has expired or is dead. It goes on where it stopped, and returns true when it has
// been through the table. It goes down, because a table that shrinks moves entries down.
func (c *Cache) Sweep(n int) (end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return true
	}
	for range n {
		if c.sweep == 0 || c.sweep > c.table.n {
			c.sweep = c.table.n
		}
		c.sweep--
		for r := *c.table.head(c.sweep); r != 0; {
			h := c.pages.at(r)
			next := h.chain
			if b := c.lives[h.life]; b == nil {
				c.drop(r)
			} else if c.expired(h) {
				c.expire(b, r)
			}
			r = next
		}
		if c.sweep == 0 {
			return true
		}
	}
	return false
}
