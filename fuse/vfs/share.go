package vfs

import (
	"cmp"
	"context"
	"time"

	"dos/meta"
)

const (
	// An open file that needs shareAfter answers within shareWithin gets S: two
	// commits, for taking it and giving it back, cost some times as much as an answer.
	shareAfter  = 8
	shareWithin = 5 * time.Second
	// sharedIdle is how long S of an open file is kept that nobody asks for: longer
	// than the kernel answers by itself. That of a closed file is kept for programs
	// that read the same files again; it costs others one question when they write.
	sharedIdle   = time.Minute
	sharedClosed = 10 * time.Second
)

// wish notes that the metadata service has to be asked what it would not if S was
// ours, and asks for S when that happens often. n.mu is held.
func (fs *FS) wish(n *inode) {
	now := time.Now()
	if n.opens == 0 || n.moving || n.shared || now.Before(n.apart) || !n.sharable() {
		return
	}
	if now.Sub(n.asked) > shareWithin {
		n.asked, n.asks = now, 0
	}
	if n.asks++; n.asks < shareAfter {
		return
	}
	n.asks = 0
	fs.mu.Lock()
	fs.holdLocked(n)
	fs.mu.Unlock()
	n.moving = fs.later(func(work context.Context) {
		fs.share(work, n)
		fs.put(n)
	})
	if !n.moving { // Run has returned
		fs.put(n)
	}
}

// share takes S. It may fail: then it is asked for again some time later.
func (fs *FS) share(ctx context.Context, n *inode) {
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.moving = false
	defer n.tell()
	if n.sharable() && fs.take(ctx, n, true) != nil {
		n.apart = time.Now().Add(fs.apart)
	}
}

// sharable says that S is of use: the file is not being changed here. mu is held.
func (n *inode) sharable() bool {
	return !n.gone && n.altering == 0 && (!n.held || n.writers == 0 && n.clean() && !n.driving)
}

// startUnshare gives S back, on the way to change the inode here. Whoever does so
// holds locks and the kernel's, and waits as long as it is moving. n.mu is held.
func (fs *FS) startUnshare(n *inode) {
	believed := fs.beginUnshare(n)
	epoch := fs.epoch.Load()
	fs.mu.Lock()
	fs.holdLocked(n)
	fs.mu.Unlock()
	if !fs.later(func(work context.Context) {
		_ = fs.endUnshare(work, n, believed, epoch) // if it fails, it is owed
		fs.put(n)
	}) {
		fs.put(n) // it goes with the session
	}
}

// beginUnshare stops relying on S. n.mu is held, n is shared and not moving.
func (fs *FS) beginUnshare(n *inode) (believed bool) {
	n.apart = time.Now().Add(fs.apart)
	n.moving = true
	return fs.unhold(n)
}

// endUnshare sees to it that the kernel does not rely on S either, and then gives
// it back.
func (fs *FS) endUnshare(ctx context.Context, n *inode, believed bool, epoch uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	if believed {
		fs.doubtAll([]meta.Ino{n.ino})
	}
	err := fs.cfg.Leases.Give(ctx, n.ino)
	n.mu.Lock()
	fs.given(n, epoch, err)
	n.mu.Unlock()
	return err
}

// recallShared gives S back for others, and reports whether it was ours. Nothing
// is dirty under S, so unlike handBack it waits for no operation of this mount,
// which may be waiting for the others' S itself.
func (fs *FS) recallShared(ctx context.Context, n *inode) (was bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	n.mu.Lock()
	for n.moving && !n.owing {
		if err := fs.pause(ctx, n); err != nil {
			n.mu.Unlock()
			return false, cmp.Or(context.Cause(ctx), err)
		}
	}
	if !n.shared {
		n.mu.Unlock()
		return false, nil
	}
	believed, epoch := fs.beginUnshare(n), fs.epoch.Load()
	n.mu.Unlock()
	return true, fs.endUnshare(ctx, n, believed, epoch)
}

// alter sees to it, before this mount changes the inode, that nothing is answered
// under S until altered: others see the change as soon as it is made, and whoever
// looks here after they did must see it too, though its answer is on its way.
func (fs *FS) alter(ctx context.Context, n *inode) error {
	if !fs.Shared() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.altering++
	for n.shared || n.moving && !n.owing {
		if n.shared && !n.moving {
			fs.startUnshare(n)
		}
		if err := fs.pause(ctx, n); err != nil {
			n.altering--
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	return nil
}

func (fs *FS) altered(n *inode) {
	if !fs.Shared() {
		return
	}
	n.mu.Lock()
	n.altering--
	n.mu.Unlock()
}

// OnDoubt has a function called with each inode of which AttrFor was believed, when
// what it said is not to be believed any longer, before anybody changes it. It is
// called without locks of this package and must not wait for requests of others.
func (fs *FS) OnDoubt(doubt func(meta.Ino)) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.doubt = doubt
}

func (fs *FS) doubtAll(list []meta.Ino) {
	fs.mu.Lock()
	doubt := fs.doubt
	fs.mu.Unlock()
	if doubt == nil {
		return
	}
	for _, ino := range list {
		doubt(ino)
	}
}

// AttrFor is Attr, and says for how long the attributes may be believed without
// asking again; if that is not 0, OnDoubt's function takes it back. A change by this
// mount itself takes it back too, except what the kernel changed with its own
// operation.
func (fs *FS) AttrFor(ctx context.Context, ino meta.Ino) (a meta.Attr, good time.Duration, err error) {
	n := fs.get(ino)
	defer fs.put(n)
	a, err = fs.look(ctx, n)
	if err != nil || !fs.Shared() || !a.IsFile() {
		return a, 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.shared {
		fs.wish(n)
		return a, 0, nil
	}
	left := fs.cfg.Leases.Left()
	if left <= 0 || !n.fresh || n.attr != a { // it was taken since
		return a, 0, nil
	}
	if until := time.Now().Add(left); until.After(n.believed) {
		n.believed = until
	}
	return a, left, nil
}
