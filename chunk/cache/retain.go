package cache

// retainStep is how many chains of the table are looked at with the lock held.
const retainStep = 1024

// Retain drops all entries that keep does not say to keep, and ends such fills, in short
// steps between which others get in: what they write meanwhile may be dropped too. It is
// for one caller at a time. keep is called with the lock held.
func (c *Cache) Retain(keep func(bucket uint64, key []byte) bool) {
	c.mu.Lock()
	for k := range c.fills {
		if b := c.lives[k.life]; b == nil || !keep(b.id, []byte(k.key)) {
			c.endFill(k)
		}
	}
	from := c.table.n
	c.table.low = from
	c.mu.Unlock()
	for from > 0 {
		from = c.retain(from, keep)
	}
}

// retain looks at chains below from, downwards: a table that shrinks moves entries
// down. One that grew since the last step moved some up, to chains from the least number
// of chains on that it had in between: these come first.
func (c *Cache) retain(from uint64, keep func(bucket uint64, key []byte) bool) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0
	}
	low := c.table.low
	for i := c.table.n; i > low; {
		i = min(i, c.table.n) - 1
		c.retainChain(i, keep)
	}
	from = min(from, low)
	for range retainStep {
		if from = min(from, c.table.n); from == 0 {
			break
		}
		from--
		c.retainChain(from, keep)
	}
	c.table.low = c.table.n
	return from
}

func (c *Cache) retainChain(i uint64, keep func(bucket uint64, key []byte) bool) {
	for r := *c.table.head(i); r != 0; {
		h := c.pages.at(r)
		next := h.chain
		if b := c.lives[h.life]; b != nil && !keep(b.id, c.pages.key(r)) {
			c.drop(r)
		}
		r = next
	}
}
