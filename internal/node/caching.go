package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	entries "dos/chunk/cache"
	"dos/internal/cache"
	"dos/meta"
	"dos/meta/members"
	metamemory "dos/meta/memory"
)

const (
	// cacheMemory is the memory that a machine has for the cache until it knows better,
	// in bytes.
	cacheMemory = 256 << 20
	// cacheDisk is the room on disk that entries take, where buckets want that.
	cacheDisk = 1 << 30
	// balanceEvery is how often it is looked what memory there is.
	balanceEvery = time.Second
	// growth is what part of the memory that is allowed may be taken again at a time.
	growth = 16
	// leaveOthers is what part of the machine's memory is to be left to others.
	leaveOthers = 16
)

// A caching is this process's part of the cache, for one session. It owns the memory that
// entries and queues in memory share: queues have what they need of it, entries the rest.
type caching struct {
	*cache.Holder
	entries *entries.Cache
	queues  *metamemory.Holder
	known   func(context.Context) (members.Map, error)
	dir     string // of the disk tier
	disk    chan struct{}
	// memory is the machine's: all, and what could be had of it, in bytes; 0: unknown.
	memory func() (total, available int64)
}

// newCaching returns one without entries. c lacks what is of this machine's memory.
func newCaching(dir string, c cache.Config, queues *metamemory.Holder, known func(context.Context) (members.Map, error)) (*caching, error) {
	held, err := entries.New(entries.Config{Limit: cacheMemory})
	if err != nil {
		return nil, err
	}
	here := &caching{
		entries: held, queues: queues, known: known, dir: dir, disk: make(chan struct{}),
		memory: func() (int64, int64) {
			_, memory := loadAndMemory()
			return memory.Total, memory.Available
		},
	}
	c.Entries, c.NeedDisk = held, sync.OnceFunc(here.openDisk)
	here.Holder = cache.New(c)
	return here, nil
}

// openDisk begins the disk tier. Without one, what memory evicts is gone.
func (c *caching) openDisk() {
	if err := c.entries.OpenDisk(c.dir, cacheDisk); err != nil {
		slog.Warn("node: the cache has no disk tier", "dir", c.dir, "err", err)
		return
	}
	close(c.disk)
}

// Run holds entries until ctx ends. Then there are none any more.
func (c *caching) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Holder.Run(ctx) })
	g.Go(func() error {
		select {
		case <-c.disk:
		case <-ctx.Done():
			return nil
		}
		if err := c.entries.Run(ctx); ctx.Err() == nil {
			slog.Warn("node: the disk tier of the cache has failed; it goes on without", "err", err)
		}
		return nil
	})
	g.Go(func() error { c.keepBalance(ctx); return nil })
	return errors.Join(g.Wait(), c.entries.Close())
}

// keepBalance keeps what entries and queues take within what they may.
func (c *caching) keepBalance(ctx context.Context) {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	allowed := int64(cacheMemory)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now, err := c.known(ctx); err == nil {
			if n, err := meta.ParseSize(now.Setting(members.CacheMemory)); err == nil {
				allowed = n
			}
		}
		if err := c.balance(allowed); err != nil {
			slog.Warn("node: the memory of the cache", "err", err)
		}
	}
}

// balance gives entries what the queues leave of the memory that is allowed. When the
// machine has little left they give up as much as it lacks; when it has again they take
// it back bit by bit.
func (c *caching) balance(allowed int64) error {
	queues := c.queues.Limit(allowed)
	used, limit := c.entries.Memory()
	want := allowed - queues
	if total, available := c.memory(); total > 0 {
		want = min(want, used+available-total/leaveOthers)
	}
	want = min(want, limit+max(allowed/growth, 1))
	least := int64(entries.MinLimit)
	select {
	case <-c.disk:
		least += entries.DiskMemory
	default:
	}
	if want = max(want, least); want == limit {
		return nil
	}
	return c.entries.SetLimit(want)
}
