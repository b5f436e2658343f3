package vfs

import (
	"context"
	"sync"
	"time"

	"dos/meta"
)

// A room remembers how much the stores can still take, so that a writer hears
// of a full cluster before its data is accepted and not after.
type room struct {
	mu     sync.Mutex
	known  bool
	free   int64 // bytes, less what was stored since it was asked
	asked  time.Time
	asking bool
}

func (fs *FS) tookRoom(n int64) {
	fs.room.mu.Lock()
	fs.room.free -= n
	fs.room.mu.Unlock()
}

// noRoom says that a store or the metadata service had no room.
func (fs *FS) noRoom() {
	fs.room.mu.Lock()
	fs.room.asked = time.Time{}
	fs.room.mu.Unlock()
}

// roomStale says that it is time to ask, once.
func (fs *FS) roomStale(now time.Time) bool {
	r := &fs.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asking || r.known && now.Sub(r.asked) < roomAge {
		return false
	}
	r.asking = true
	return true
}

// askRoom asks how much is free. An answer that does not come changes nothing.
func (fs *FS) askRoom(ctx context.Context) {
	_, free, err := fs.cfg.Data.Capacity(ctx)
	r := &fs.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking = false
	if err == nil {
		r.known, r.free, r.asked = true, free, time.Now()
	}
}

// unstored is how many bytes of data wait to be stored.
func (fs *FS) unstored() int64 { return fs.mem.data.Load() + fs.flying.Load() }

// checkRoom says whether the stores can take n bytes more than what is dirty.
func (fs *FS) checkRoom(ctx context.Context, n int64) error {
	fits := func() bool {
		dirty := fs.unstored()
		fs.room.mu.Lock()
		defer fs.room.mu.Unlock()
		return !fs.room.known || fs.room.free-dirty >= n
	}
	if fits() {
		return nil
	}
	fs.askRoom(ctx) // space may have been freed since
	if fits() {
		return nil
	}
	return meta.NoSpace
}

// Stat is what statfs shows.
type Stat struct {
	Total, Free int64 // bytes of data that the stores hold in all, and can still take
	Files       int64 // inodes in use
}

// StatFS says how full the file system is.
func (fs *FS) StatFS(ctx context.Context) (Stat, error) {
	total, free, err := fs.cfg.Data.Capacity(ctx)
	if err != nil {
		return Stat{}, writeError(err)
	}
	usage, err := fs.cfg.Meta.Usage(ctx)
	if err != nil {
		return Stat{}, err
	}
	return Stat{Total: total, Free: max(0, free-fs.unstored()), Files: usage.Inodes}, nil
}
