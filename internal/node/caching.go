package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	entries "dos/chunk/cache"
	"dos/internal/cache"
)

const (
	// cacheMemory is the memory that entries of the cache take on a machine, in bytes.
	cacheMemory = 256 << 20
	// cacheDisk is the room on disk that they take, where buckets want that.
	cacheDisk = 1 << 30
)

// A caching is this process's part of the cache, for one session.
type caching struct {
	*cache.Holder
	entries *entries.Cache
	dir     string // of the disk tier
	disk    chan struct{}
}

// newCaching returns one without entries. c lacks what is of this machine's memory.
func newCaching(dir string, c cache.Config) (*caching, error) {
	all, err := entries.New(entries.Config{Limit: cacheMemory})
	if err != nil {
		return nil, err
	}
	here := &caching{entries: all, dir: dir, disk: make(chan struct{})}
	c.Entries, c.NeedDisk = all, sync.OnceFunc(here.openDisk)
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
	return errors.Join(g.Wait(), c.entries.Close())
}
