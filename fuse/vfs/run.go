package vfs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/meta"
)

const (
	// maxSlots bounds the stripes that are being stored at once: enough to keep
	// the disks busy while a writer in sequence fills the next, few enough that
	// the buffers for putting pieces together stay small.
	maxSlots = 8
	// maxCommits bounds the commands of write-back under way at once; they share
	// commits with each other.
	maxCommits = 64
	// roomAge is how old an answer about free space may be while data is dirty.
	roomAge = time.Second
)

// Run stores what is written until ctx ends; then it stores the rest, for at
// most Config.Wait, and returns. What could not be stored is its error. What is
// asked of the FS afterwards and needs to be stored fails.
func (fs *FS) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	tick := time.NewTicker(fs.cfg.Age / 20)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-fs.wake:
			fs.startAll(work)
		case <-fs.press:
			fs.relieve()
		case now := <-tick.C:
			fs.age(work, now)
		}
	}
	err := fs.drain(work, tick.C)
	cancel()
	fs.mu.Lock()
	fs.stopped = true
	fs.mu.Unlock()
	close(fs.done)
	fs.work.Wait()
	return err
}

// drain stores everything, for at most Wait.
func (fs *FS) drain(work context.Context, tick <-chan time.Time) error {
	limit := time.NewTimer(fs.cfg.Wait)
	defer limit.Stop()
	for {
		left := fs.dirtyInodes()
		if len(left) == 0 {
			return nil // what is not dropped yet goes with the session
		}
		now := time.Now()
		for _, n := range left {
			n.mu.Lock()
			switch {
			case n.orphan() && !n.driving && !n.frozen:
				fs.lose(n, meta.NotExist)
			case !n.frozen && !now.Before(n.retry):
				fs.send(n, 0, 1<<63-1, false)
			}
			n.mu.Unlock()
		}
		fs.putAll(left)
		select {
		case <-limit.C:
			left := fs.dirtyInodes()
			defer fs.putAll(left)
			if len(left) == 0 {
				return nil // what is reaped goes with the session
			}
			return fmt.Errorf("vfs: the data of %d files could not be stored in %v: %w", len(left), fs.cfg.Wait, meta.Unavailable)
		case <-fs.wake:
			fs.startAll(work)
		case <-fs.press:
		case <-tick:
		}
	}
}

// start asks Run to start a driver. n.mu is held. It reports false when Run has
// returned.
func (fs *FS) start(n *inode) bool {
	return fs.later(func(work context.Context) { fs.drive(work, n) })
}

// later has Run run a job beside itself. It reports false when Run has returned.
func (fs *FS) later(job func(work context.Context)) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.stopped {
		return false
	}
	fs.jobs = append(fs.jobs, job)
	poke(fs.wake)
	return true
}

// poke leaves a note in a channel of capacity one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (fs *FS) startAll(work context.Context) {
	fs.mu.Lock()
	list := fs.jobs
	fs.jobs = nil
	fs.mu.Unlock()
	for _, job := range list {
		fs.work.Go(func() { job(work) })
	}
	fs.startReaper(work, false)
}

// setDirty puts the inode on the list of the dirty ones, which holds it. n.mu
// is held.
func (fs *FS) setDirty(n *inode, dirty bool) {
	fs.mu.Lock()
	was := fs.dirty[n]
	switch {
	case dirty && !was:
		fs.dirty[n] = true
		fs.holdLocked(n)
	case !dirty && was:
		delete(fs.dirty, n)
	}
	fs.mu.Unlock()
	if was && !dirty {
		fs.put(n)
	}
}

// dirtyInodes returns the dirty inodes, each held.
func (fs *FS) dirtyInodes() []*inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	list := make([]*inode, 0, len(fs.dirty))
	for n := range fs.dirty {
		fs.holdLocked(n)
		list = append(list, n)
	}
	return list
}

func (fs *FS) putAll(list []*inode) {
	for _, n := range list {
		fs.put(n)
	}
}

// age sends what has waited long enough, and what failed and may be tried again.
func (fs *FS) age(work context.Context, now time.Time) {
	list := fs.dirtyInodes()
	defer fs.putAll(list)
	for _, n := range list {
		n.mu.Lock()
		// An orphan's data will never be wanted after a crash.
		if !n.frozen && !n.orphan() && !now.Before(n.retry) {
			if !n.active.empty() && now.Sub(n.active.since()) >= fs.cfg.Age*19/20 {
				fs.send(n, 0, 1<<63-1, false)
			}
			fs.kick(n)
		}
		n.mu.Unlock()
	}
	if len(list) > 0 && fs.roomStale(now) {
		fs.work.Go(func() {
			ctx, cancel := context.WithTimeout(work, fs.cfg.Wait)
			defer cancel()
			fs.askRoom(ctx)
		})
	}
	if _, waiting := fs.mem.taken(); waiting {
		fs.relieve()
	}
	fs.startReaper(work, true)
	fs.startReturn(work, now)
}

// relieve sends dirty data, full stripes first and the oldest next, until half of
// the memory is free or on its way.
func (fs *FS) relieve() {
	if !fs.pressed() {
		return
	}
	list := fs.dirtyInodes()
	defer fs.putAll(list)
	type old struct {
		n     *inode
		since time.Time
	}
	var olds []old
	now := time.Now()
	for _, n := range list {
		n.mu.Lock()
		if !n.frozen && !now.Before(n.retry) && !n.active.empty() {
			for _, wi := range n.active.touched(0, 1<<63-1) {
				if w := n.active.windows[wi]; w != nil && w.bytes == span {
					fs.sendSpan(n, wi)
				}
			}
			if !n.active.empty() {
				olds = append(olds, old{n, n.active.since()})
			}
		}
		n.mu.Unlock()
	}
	slices.SortFunc(olds, func(a, b old) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.n.ino, b.n.ino)) })
	for _, o := range olds {
		if !fs.pressed() {
			return
		}
		o.n.mu.Lock()
		if !o.n.frozen {
			fs.send(o.n, 0, 1<<63-1, false)
		}
		o.n.mu.Unlock()
	}
}

// pressed says that more than half of the memory is dirty and not on its way.
func (fs *FS) pressed() bool {
	used, _ := fs.mem.taken()
	return used-fs.flying.Load() > fs.mem.limit/2
}

// sendSpan sends a full span. If that makes the file longer, what is dirty before
// it goes first: a crash must not leave a hole where the program wrote. n.mu is held.
func (fs *FS) sendSpan(n *inode, wi int64) {
	from, to := wi*span, (wi+1)*span
	end := n.attr.Size
	for _, l := range n.queue {
		end = max(end, l.end())
	}
	if to > end {
		from = 0
	}
	fs.send(n, from, to, false)
}

// SyncAll returns when all that was written before is stored.
func (fs *FS) SyncAll(ctx context.Context) error {
	list := fs.dirtyInodes()
	defer fs.putAll(list)
	var g errgroup.Group
	g.SetLimit(maxCommits)
	for _, n := range list {
		g.Go(func() error { return fs.sync(ctx, n, false) })
	}
	return g.Wait()
}
