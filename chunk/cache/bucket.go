package cache

import (
	"fmt"
	"slices"
	"time"
)

// A Policy says which entry of a bucket is evicted first; see the package comment.
type Policy uint8

// The policies.
const (
	LRU Policy = iota
	LFU
	FIFO
)

// Settings are a bucket's.
type Settings struct {
	Policy Policy
	Tier   Tier
	Max    int64         // bytes of memory on this node; 0: what the node has
	TTL    time.Duration // of entries that are written without one; 0: they do not expire
}

// Stats is what a bucket has and what has happened in it since it was first configured.
type Stats struct {
	Items     int64 // in memory, some of which may have expired
	Bytes     int64 // of memory they take
	DiskItems int64 // on disk
	DiskBytes int64 // of their values
	Hits      uint64
	Misses    uint64
	Evictions uint64 // for room, not to disk; neither expired nor cleared
	Expired   uint64
}

// levels is how many lists lfu has: reads of 2^15 and more are one.
const levels = 16

// bucket is one at its present generation. All is guarded by Cache.mu.
type bucket struct {
	id         uint64
	generation uint64
	life       uint32 // what its entries have in their headers
	settings   Settings
	stats      Stats
	// lists are the levels of lfu, that of level l at l%levels, base the lowest. The
	// others use one list alone, that of base.
	lists    [levels]list
	base     uint32
	reads    uint64 // since the levels sank
	watchers []*Watcher
}

// Configure makes the bucket, or gives it other settings. A later generation than the
// node's clears it; an earlier is ErrStale. Entries that are there keep their ttl, and a
// bucket that is over its new Max shrinks with its next writes.
func (c *Cache) Configure(at Bucket, s Settings) error {
	if s.Policy > FIFO || s.Tier > Both || s.Max < 0 || s.TTL < 0 {
		return fmt.Errorf("settings %+v: %w", s, ErrInvalid)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	b := c.buckets[at.ID]
	switch {
	case b == nil:
		b = &bucket{id: at.ID, generation: at.Generation}
		c.live(b)
		c.buckets[at.ID] = b
		c.turns = append(c.turns, b)
	case at.Generation < b.generation:
		return ErrStale
	case at.Generation > b.generation:
		c.kill(b)
		b.generation = at.Generation
		c.live(b)
		c.tell(b, Clear, nil, 0)
	}
	if s.Policy != b.settings.Policy {
		b.flatten(&c.pages)
	}
	b.settings = s
	return nil
}

// Drop forgets the bucket and all that is in it. Its watchers get ErrUnknown.
func (c *Cache) Drop(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buckets[id]
	if b == nil || c.closed {
		return
	}
	c.kill(b)
	b.endWatchers(ErrUnknown)
	delete(c.buckets, id)
	c.turns = slices.DeleteFunc(c.turns, func(o *bucket) bool { return o == b })
}

// Stats returns what is counted of a bucket.
func (c *Cache) Stats(at Bucket) (Stats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return Stats{}, err
	}
	return b.stats, nil
}

// live begins a life of b.
func (c *Cache) live(b *bucket) {
	c.life++
	b.life = c.life
	c.lives[b.life] = b
}

// kill ends b's life, in O(1): its entries are found by nobody, and are the first
// whose memory is used again.
func (c *Cache) kill(b *bucket) {
	delete(c.lives, b.life)
	b.flatten(&c.pages)
	c.dead.splice(&c.pages, b.list(b.base))
	b.stats.Items, b.stats.Bytes = 0, 0
	b.stats.DiskItems, b.stats.DiskBytes = 0, 0
	for k := range c.fills {
		if k.life == b.life {
			c.endFill(k)
		}
	}
}

func (b *bucket) list(level uint32) *list { return &b.lists[max(level, b.base)%levels] }

// flatten puts all entries on the lowest level, those of low levels first.
func (b *bucket) flatten(p *pages) {
	// Levels above stay in the headers of entries, so the new base is above them all.
	all := b.list(b.base)
	for l := b.base + 1; l < b.base+levels; l++ {
		all.splice(p, b.list(l))
	}
	top := (b.base + levels - 1) % levels
	if to := &b.lists[top]; to != all {
		*to, *all = *all, list{}
	}
	b.base += levels - 1
	b.reads = 0
}

// enlist makes a new entry the last to be evicted of those that count as little.
func (b *bucket) enlist(p *pages, r ref) {
	h := p.at(r)
	h.level, h.hits = b.base, 0
	b.list(h.level).push(p, r)
}

// touch counts a read.
func (b *bucket) touch(p *pages, r ref) {
	h := p.at(r)
	switch b.settings.Policy {
	case LRU:
		l := b.list(h.level)
		if l.last != r {
			l.remove(p, r)
			l.push(p, r)
		}
	case LFU:
		l := b.list(h.level)
		l.remove(p, r)
		if h.level < b.base { // it sank
			h.level, h.hits = b.base, 0
		}
		h.hits++
		if up := h.level - b.base; up < levels-1 && h.hits >= 1<<up {
			h.level++
			h.hits = 0
		}
		b.list(h.level).push(p, r)
		b.reads++
		if b.reads >= 8*uint64(max(64, b.stats.Items)) {
			b.sink(p)
		}
	}
}

// sink lowers every entry by one level.
func (b *bucket) sink(p *pages) {
	low := b.list(b.base)
	b.base++
	b.reads = 0
	// What was lowest remains in front of what joins it.
	low.splice(p, b.list(b.base))
	*b.list(b.base), *low = *low, list{}
}

// victim returns the next to be evicted; 0: there is none.
func (b *bucket) victim() ref {
	for l := b.base; l < b.base+levels; l++ {
		if r := b.list(l).first; r != 0 {
			return r
		}
	}
	return 0
}
