package vfs

import (
	"context"
	"errors"

	"dos/meta"
)

// reapLater has the reaper look at an inode whose last name may be gone and
// that is not open any more.
func (fs *FS) reapLater(n *inode) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.holdLocked(n)
	fs.toReap = append(fs.toReap, n)
	poke(fs.wake)
}

// startReaper starts the reaper if there is something for it. It reports
// whether it is at work.
func (fs *FS) startReaper(work context.Context) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if !fs.reaping && len(fs.toReap)+len(fs.toDrop) > 0 {
		fs.reaping = true
		fs.work.Go(func() { fs.reap(work) })
	}
	return fs.reaping
}

// reap gives up the inodes that nobody can reach any more. What fails is tried
// again later.
func (fs *FS) reap(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fs.cfg.Wait)
	defer cancel()
	fs.mu.Lock()
	list, drop := fs.toReap, fs.toDrop
	fs.toReap, fs.toDrop = nil, nil
	fs.mu.Unlock()
	var again []*inode
	for _, n := range list {
		switch gone, err := fs.giveUp(ctx, n); {
		case err != nil:
			again = append(again, n)
			continue
		case gone:
			drop = append(drop, n.ino)
		}
		fs.put(n)
	}
	if len(drop) > 0 && fs.cfg.Meta.Drop(ctx, drop...) == nil {
		drop = nil
	}
	fs.mu.Lock()
	fs.toReap = append(fs.toReap, again...)
	fs.toDrop = append(fs.toDrop, drop...)
	fs.reaping = false
	if len(again) == 0 && len(fs.toReap) > 0 {
		poke(fs.wake)
	}
	fs.mu.Unlock()
}

// giveUp forgets an inode if it has no name and is not open.
func (fs *FS) giveUp(ctx context.Context, n *inode) (bool, error) {
	if err := n.life.Lock(ctx); err != nil {
		return false, err
	}
	defer n.life.Unlock()
	n.mu.Lock()
	look := n.opens == 0 && n.kept && !n.gone
	n.mu.Unlock()
	if !look {
		return false, nil
	}
	err := fs.fetch(ctx, n)
	if err != nil && !errors.Is(err, meta.NotExist) {
		return false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && n.attr.Nlink > 0 {
		n.kept = false // it has other names
		return false, nil
	}
	fs.discard(ctx, n)
	return true, nil
}

// discard marks an inode as gone and forgets its dirty data, at once or, if a
// driver has it, when that has found out. n.mu is held.
func (fs *FS) discard(ctx context.Context, n *inode) {
	n.gone, n.fresh = true, false
	for n.driving {
		if fs.pause(ctx, n) != nil {
			return // the driver's next command fails: the inode does not exist
		}
	}
	fs.lose(n, meta.NotExist)
}
