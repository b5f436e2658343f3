package vfs

import (
	"context"
	"errors"

	"dos/meta"
)

// dropBatch is how many inodes one command drops at most.
const dropBatch = 1024

// Hold says that the caller knows the inode by its number, which an answer
// gave it, and may come back with it: until Forget the inode outlives its last
// name. So a program that has looked a name up opens the file that stood there
// even when another takes its place in between.
func (fs *FS) Hold(ino meta.Ino) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.known[ino]++
}

// Forget ends as many Holds.
func (fs *FS) Forget(ino meta.Ino, times uint64) {
	fs.mu.Lock()
	if held := uint64(fs.known[ino]); times < held {
		fs.known[ino] = uint32(held - times)
		fs.mu.Unlock()
		return
	}
	delete(fs.known, ino)
	fs.mu.Unlock()
	if n := fs.peek(ino); n != nil {
		fs.unused(n)
		fs.put(n)
	}
}

// inUse says that somebody may still come to the inode without a name.
// n.mu is held.
func (fs *FS) inUse(n *inode) bool {
	if n.opens > 0 {
		return true
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.known[n.ino] > 0
}

// keep returns the inode's number if it is in use, so that it outlives its last
// name. The caller holds life, and calls unused when the name is gone.
func (fs *FS) keep(n *inode) meta.Ino {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !fs.inUse(n) {
		return 0
	}
	if !n.kept {
		n.kept = true
		fs.mu.Lock()
		fs.holdLocked(n)
		fs.mu.Unlock()
	}
	return n.ino
}

// unused has the reaper look at the inode if it was kept and nobody uses it
// any more.
func (fs *FS) unused(n *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.kept || n.gone || fs.inUse(n) {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.holdLocked(n)
	fs.toReap = append(fs.toReap, n)
	poke(fs.wake)
}

// startReaper starts the reaper if there is something for it. It reports
// whether it is at work. Less than a batch to drop waits until it is due: a
// command for each file would cost as much as removing its name did.
func (fs *FS) startReaper(work context.Context, due bool) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if !fs.reaping && (len(fs.toReap) > 0 || due && len(fs.toDrop) > 0) {
		fs.reaping = true
		fs.work.Go(func() { fs.reap(work, due) })
	}
	return fs.reaping
}

// reap gives up the inodes that nobody can reach any more. What fails is tried
// again later.
func (fs *FS) reap(ctx context.Context, due bool) {
	ctx, cancel := context.WithTimeout(ctx, fs.cfg.Wait)
	defer cancel()
	fs.mu.Lock()
	list := fs.toReap
	fs.toReap = nil
	fs.mu.Unlock()
	var gone []meta.Ino
	var again []*inode
	for _, n := range list {
		switch done, err := fs.giveUp(ctx, n); {
		case err != nil:
			again = append(again, n)
			continue
		case done:
			gone = append(gone, n.ino)
		}
		fs.put(n)
	}
	fs.mu.Lock()
	drop := append(fs.toDrop, gone...)
	fs.toDrop = nil
	fs.mu.Unlock()
	for len(drop) >= dropBatch || due && len(drop) > 0 {
		batch := drop[:min(len(drop), dropBatch)]
		if fs.cfg.Meta.Drop(ctx, batch...) != nil {
			break
		}
		drop = drop[len(batch):]
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

// giveUp forgets an inode if it has no name and is not in use.
func (fs *FS) giveUp(ctx context.Context, n *inode) (bool, error) {
	if err := n.life.Lock(ctx); err != nil {
		return false, err
	}
	defer n.life.Unlock()
	n.mu.Lock()
	look := n.kept && !n.gone && !fs.inUse(n)
	n.mu.Unlock()
	if !look {
		return false, nil
	}
	a, err := fs.look(ctx, n)
	if err != nil && !errors.Is(err, meta.NotExist) {
		return false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.kept { // the session that kept it is over
		return false, nil
	}
	if n.kept = false; err == nil && a.Nlink > 0 { // it has other names
		fs.put(n)
		return false, nil
	}
	defer fs.put(n)
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
	fs.unhold(n)
}
