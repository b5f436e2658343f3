// Package cache holds the entries of /dos/cache that one node has. It knows nothing of
// the network, of Raft or of which node has what: whoever calls it decides that, and
// says with each call which bucket at which generation is meant.
//
// # Buckets
//
// A bucket is a number and a generation. Configure makes one, or changes its settings;
// with a later generation it clears it, in O(1): what is there of the earlier generation
// is dead from then on, and its memory is the first to be used again. A call with an
// earlier generation than the node's is ErrStale, one with a later ErrUnknown: the
// caller has to Configure first.
//
// # Versions
//
// Each write gives its entry a version above all that this node has given, and at least
// the nanoseconds of the clock, so a version does not come twice for a key: neither
// after a delete nor, unless the clock is set back, after a restart.
//
// # Memory
//
// The limit is one of real memory. Entries are not on Go's heap, where a collector
// lets twice what lives stand, but in pages of 64 KiB outside of it, cut into slots of
// one size each; the table that finds them is in such pages as well. What counts is
// pages, used or half used, so no write takes the process above the limit; besides the
// pages there are 24 bytes of heap a page, and what watchers, waiting fills and bucket
// settings take. A page that is free goes back to the kernel, but for freeMax that are
// kept, and counted. If what is to be evicted by policy leaves no page or slot of the
// size that is needed, all of one page, the next victim's, is evicted: so memory moves
// from one size to another, and so it is given back when SetLimit lowers the limit.
//
// If the node is full, the largest of five buckets, the writer's and four that take
// turns, gives an entry. Within a bucket the policy says which:
//
//   - lru: the one that was read or written longest ago
//   - fifo: the one that was written longest ago
//   - lfu: one of those read least often, and of these the one read longest ago.
//     Entries are on levels, each twice as far from the next; all sink by one level
//     when the bucket was read eight times as often as it has entries, so that what was
//     popular once does not stay for ever.
//
// The policies are our own lists of a few lines, not a library's: otter (v2) has
// W-TinyLFU alone, counts what the caller says an entry weighs rather than memory,
// evicts later than it inserts, and has no limit over several caches; golang-lru has
// no weights and no lfu. Both keep their entries on the heap.
//
// # Disk
//
// With a disk tier, what memory evicts of a bucket that says so goes to disk, by one
// writer (Run). Its key stays in memory, with version, time and a number under which
// the value alone is on disk, written once and never under that number again. So the
// disk is never asked whether an entry is there: a write or delete changes the key
// in memory, as ever, and the value that is left on disk has no name any more. For
// the same reason there is nothing to recover: New empties the disk tier, however it
// was left, since a node that was away does not know what was deleted meanwhile.
//
// The keys of such entries may take a quarter of the memory; then those longest on
// disk go. DiskMemory of the limit is for the disk tier's own buffers. Files that it has
// mapped count as the kernel's page cache, not as memory of the process. What comes
// faster than the disk writes, or when it has failed, is evicted as without one; a
// value that cannot be read back whole is a miss.
//
// # Expiry
//
// An entry that has expired is never returned. Its memory is freed, and watchers are
// told, when somebody asks for it, or when Sweep comes by, which the owner calls now
// and then.
//
// All methods may be called concurrently. There is one lock; no I/O happens under it.
package cache

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// MaxKey bounds a key, in bytes: the longest path that the kernel passes.
	MaxKey = 4096
	// MaxValue bounds a value, in bytes, so that every buffer that holds one is bounded.
	MaxValue = 4 << 20
	// MinLimit is the least limit of a node, in bytes: room for the largest entry
	// beside the table and some others.
	MinLimit = 8 << 20
)

// The errors. They are kinds: test with errors.Is.
var (
	ErrMiss      = errors.New("cache: no such entry")
	ErrExist     = errors.New("cache: the entry exists")
	ErrConflict  = errors.New("cache: changed meanwhile")
	ErrStale     = errors.New("cache: bucket has been cleared since")
	ErrUnknown   = errors.New("cache: bucket is not known at that generation")
	ErrTooLarge  = errors.New("cache: too large")
	ErrNotNumber = errors.New("cache: not a number, or out of range")
	ErrInvalid   = errors.New("cache: invalid")
	ErrClosed    = errors.New("cache: closed")
)

// Config is what a Cache needs.
type Config struct {
	// Limit is the memory that all entries may take, in bytes; see the package comment.
	Limit int64
	// Disk is a directory for the disk tier, which is emptied; none: there is no disk tier.
	Disk string
	// DiskMax is the room on disk that it may take, in bytes, at least MinDisk.
	DiskMax int64
	// Now is the clock by which entries expire. Default: time.Now.
	Now func() time.Time
}

// A Bucket names a bucket at one of its generations.
type Bucket struct {
	ID         uint64
	Generation uint64
}

// An Entry is what is held under a key.
type Entry struct {
	Value   []byte
	Version uint64
	Expires time.Time // zero: never
}

// A Cache is the entries of one node.
type Cache struct {
	now  func() time.Time
	seed maphash.Seed
	disk *disk // may be nil

	mu      sync.Mutex
	reserve int64 // what the disk takes of the memory, in bytes
	closed  bool
	limit   int64  // bytes
	version uint64 // the last one given
	pages   pages
	table   table
	buckets map[uint64]*bucket
	turns   []*bucket          // the same buckets, in the order in which they give
	turn    int                // index into turns
	lives   map[uint32]*bucket // by what entries of theirs have in their headers
	life    uint32             // the last number of a life
	dead    list               // entries in memory of lives that are over
	onDisk  list               // entries whose values are on disk, those there longest first
	keys    int64              // the bytes of memory of these
	sweep   uint64             // the chains of the table that Sweep has yet to see; 0: all
	fills   map[fillKey]*fill
}

// New returns an empty Cache. Limits below MinLimit, or with a disk below MinLimit and
// DiskMemory, are ErrInvalid.
func New(cfg Config) (*Cache, error) {
	var reserve int64
	if cfg.Disk != "" {
		reserve = DiskMemory
	}
	if cfg.Limit-reserve < MinLimit {
		return nil, fmt.Errorf("limit of %d bytes, less than %d: %w", cfg.Limit, MinLimit+reserve, ErrInvalid)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Cache{
		now:     cfg.Now,
		seed:    maphash.MakeSeed(),
		reserve: reserve,
		limit:   cfg.Limit - reserve,
		buckets: make(map[uint64]*bucket),
		lives:   make(map[uint32]*bucket),
		fills:   make(map[fillKey]*fill),
	}
	if err := c.table.init(&c.pages); err != nil {
		return nil, err
	}
	if cfg.Disk != "" {
		d, err := openDisk(cfg.Disk, cfg.DiskMax)
		if err != nil {
			return nil, errors.Join(err, c.pages.close())
		}
		c.disk = d
	}
	return c, nil
}

// Close gives all memory back. What is called afterwards is ErrClosed, and so is what waits.
func (c *Cache) Close() error {
	if err := c.end(); err != nil || c.disk == nil {
		return err
	}
	return c.disk.close()
}

func (c *Cache) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.closed = true
	for _, b := range c.buckets {
		b.endWatchers(ErrClosed)
	}
	for k := range c.fills {
		c.endFill(k)
	}
	return c.pages.close()
}

// enter finds the bucket of a call. The caller holds mu.
func (c *Cache) enter(at Bucket) (*bucket, error) {
	if c.closed {
		return nil, ErrClosed
	}
	b := c.buckets[at.ID]
	switch {
	case b == nil || at.Generation > b.generation:
		return nil, ErrUnknown
	case at.Generation < b.generation:
		return nil, ErrStale
	}
	return b, nil
}

func (c *Cache) hash(life uint32, key string) uint64 {
	return maphash.String(c.seed, key) ^ uint64(life)*0x9e3779b97f4a7c15
}

// nextVersion returns a version that was never given.
func (c *Cache) nextVersion() uint64 {
	c.version = max(c.version+1, uint64(max(0, c.now().UnixNano())))
	return c.version
}

// expired says whether h's time is over. Only entries with one cost a look at the clock.
func (c *Cache) expired(h *header) bool {
	return h.expires != 0 && h.expires <= c.now().UnixNano()
}
