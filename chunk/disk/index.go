package disk

import (
	"container/list"
	"sync"

	"github.com/google/btree"

	"dos/chunk"
)

// An entry says where a live shard is: 32 bytes.
type entry struct {
	stripe chunk.StripeID
	seq    uint64
	at     place
	size   uint32 // bytes
	index  uint8
	bad    bool // a read found it damaged: listed no more, replaced by Put
}

func (e entry) id() chunk.ID { return chunk.ID{Stripe: e.stripe, Index: e.index} }

// bytes is what the record takes in its segment.
func (e entry) bytes() int64 { return int64(shapeOf(int(e.size)).blocks()) * block }

func (e entry) grave() grave { return grave{e.id(), e.at, shapeOf(int(e.size)).blocks()} }

func key(id chunk.ID) entry { return entry{stripe: id.Stripe, index: id.Index} }

// A grave is a dead record that is still on the disk.
type grave struct {
	id     chunk.ID
	at     place
	blocks uint32
}

type index = btree.BTreeG[entry]

const indexDegree = 64 // wide nodes: few pointers, little slack

func newIndex() *index {
	return btree.NewG(indexDegree, func(a, b entry) bool {
		if a.stripe != b.stripe {
			return a.stripe < b.stripe
		}
		return a.index < b.index
	})
}

// A sumCache keeps tables of checksums, the most recently used ones.
type sumCache struct {
	limit int // bytes

	mu     sync.Mutex
	tables map[place]*list.Element // guarded by mu, as what follows
	recent list.List               // of *sumTable, the latest first
	size   int
}

type sumTable struct {
	at   place
	sums []byte // never modified
}

const sumOverhead = 160 // bytes that a table costs besides its sums

func newSumCache(limit int) *sumCache {
	return &sumCache{limit: limit, tables: make(map[place]*list.Element)}
}

func (c *sumCache) get(at place) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.tables[at]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*sumTable).sums
}

func (c *sumCache) put(at place, sums []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tables[at] != nil {
		return
	}
	c.tables[at] = c.recent.PushFront(&sumTable{at, sums})
	c.size += len(sums) + sumOverhead
	for c.size > c.limit && c.recent.Len() > 0 {
		c.drop(c.recent.Back())
	}
}

func (c *sumCache) forget(at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.tables[at]; e != nil {
		c.drop(e)
	}
}

func (c *sumCache) drop(e *list.Element) {
	t := c.recent.Remove(e).(*sumTable)
	delete(c.tables, t.at)
	c.size -= len(t.sums) + sumOverhead
}
