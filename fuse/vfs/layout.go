package vfs

import (
	"container/list"
	"context"
	"sort"
	"sync"
	"time"

	"dos/chunk"
	"dos/meta"
)

const (
	// layoutSpan is the length of the aligned file ranges whose extents are
	// cached together: 4 extents of a file written in sequence, 4096 of one
	// written at random in blocks.
	layoutSpan = 16 << 20
	// layoutAge is how long cached extents may be used. Folding moves bytes
	// without telling; a dead stripe lives for 60 s, so this leaves as much
	// for the read itself.
	layoutAge = 30 * time.Second
	// layoutCost bounds the memory in bytes of all cached extents.
	layoutCost = 32 << 20
)

// A layout is a cached answer to where a range of a file lies. It is not
// modified after it is made, but for what layouts.mu guards.
type layout struct {
	from, end int64
	extents   []meta.Extent
	stripes   map[chunk.StripeID]chunk.Stripe
	made      time.Time
	attr      meta.Attr // of the file then

	ino  meta.Ino
	idx  int64 // from / layoutSpan
	cost int64
	elem *list.Element // guarded by layouts.mu
	hot  bool          // guarded by layouts.mu: used since eviction last looked at it
}

func newLayout(ino meta.Ino, from int64, a meta.Layout, now time.Time) *layout {
	l := &layout{from: from, end: a.End, extents: a.Extents, made: now, attr: a.Attr, ino: ino, idx: from / layoutSpan}
	l.stripes = make(map[chunk.StripeID]chunk.Stripe, len(a.Stripes))
	l.cost = 256 + int64(len(a.Extents))*56 + int64(len(a.Stripes))*128
	for _, s := range a.Stripes {
		l.stripes[s.ID] = s
	}
	for _, e := range a.Extents {
		l.cost += int64(len(e.Inline))
	}
	return l
}

// after returns the index of the first extent that ends after off.
func (l *layout) after(off int64) int {
	return sort.Search(len(l.extents), func(i int) bool { return l.extents[i].End() > off })
}

// layouts is the cache of extents of all files.
type layouts struct {
	mu   sync.Mutex
	by   map[meta.Ino]map[int64]*layout // guarded by mu
	fifo list.List                      // guarded by mu; of *layout, oldest in front
	cost int64                          // guarded by mu
}

// at returns the cached extents around off, or nil.
func (c *layouts) at(ino meta.Ino, off int64, now time.Time) *layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.by[ino][off/layoutSpan]
	if l == nil || off < l.from || off >= l.end || now.Sub(l.made) > layoutAge {
		return nil
	}
	l.hot = true
	return l
}

func (c *layouts) put(l *layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = make(map[meta.Ino]map[int64]*layout)
	}
	c.removeLocked(c.by[l.ino][l.idx])
	if c.by[l.ino] == nil {
		c.by[l.ino] = make(map[int64]*layout)
	}
	c.by[l.ino][l.idx] = l
	l.elem = c.fifo.PushBack(l)
	c.cost += l.cost
	for c.cost > layoutCost && c.fifo.Len() > 1 {
		old := c.fifo.Front().Value.(*layout)
		if old.hot { // a second chance
			old.hot = false
			c.fifo.MoveToBack(old.elem)
			continue
		}
		c.removeLocked(old)
	}
}

func (c *layouts) removeLocked(l *layout) {
	if l == nil {
		return
	}
	c.fifo.Remove(l.elem)
	c.cost -= l.cost
	delete(c.by[l.ino], l.idx)
	if len(c.by[l.ino]) == 0 {
		delete(c.by, l.ino)
	}
}

// drop forgets what is cached of [from, to).
func (c *layouts) drop(ino meta.Ino, from, to int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for idx, l := range c.by[ino] {
		if idx*layoutSpan < to && (idx+1)*layoutSpan > from {
			c.removeLocked(l)
		}
	}
}

// layoutAt returns extents that reach from off to some point after it. If now is
// not nil, it is what the file's attributes have just been said to be.
func (fs *FS) layoutAt(ctx context.Context, n *inode, off int64, now *meta.Attr) (*layout, error) {
	if l := fs.layouts.at(n.ino, off, time.Now()); l != nil && (now == nil || l.attr.Data == now.Data) {
		return l, nil
	}
	return fs.askLayout(ctx, n, off)
}

// confirm returns the file's attributes as the metadata service has them now,
// at the price of one question that a read asks anyway.
func (fs *FS) confirm(ctx context.Context, n *inode, off int64) (meta.Attr, error) {
	if fs.layouts.at(n.ino, off, time.Now()) != nil {
		return fs.cfg.Meta.Attr(ctx, n.ino)
	}
	l, err := fs.askLayout(ctx, n, off)
	if err != nil {
		return meta.Attr{}, err
	}
	return l.attr, nil
}

func (fs *FS) askLayout(ctx context.Context, n *inode, off int64) (*layout, error) {
	n.mu.Lock()
	gen := n.laygen
	n.mu.Unlock()
	from := off / layoutSpan * layoutSpan
	now := time.Now()
	a, err := fs.cfg.Meta.Layout(ctx, n.ino, from, layoutSpan)
	if err == nil && a.End <= off { // so many extents that the answer does not reach off
		from = off
		a, err = fs.cfg.Meta.Layout(ctx, n.ino, from, (off/layoutSpan+1)*layoutSpan-off)
	}
	if err != nil {
		return nil, err
	}
	if a.End <= off {
		return nil, meta.Lost // an answer that says nothing: it would be asked for for ever
	}
	l := newLayout(n.ino, from, a, now)
	n.mu.Lock()
	if n.laygen == gen {
		fs.layouts.put(l)
	}
	n.mu.Unlock()
	return l, nil
}

// moved says that the bytes of a range lie elsewhere now. n.mu is held.
func (fs *FS) moved(n *inode, from, to int64) {
	n.laygen++
	fs.layouts.drop(n.ino, from, to)
}
