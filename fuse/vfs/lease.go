package vfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"dos/meta"
)

// Leases is how a tree that other mounts use too gets files to itself (package
// meta/lease). Presence of meta/client is one.
type Leases interface {
	// Take gets X of an inode, or S if it is to be shared. It waits until others have
	// given back what is in the way.
	Take(ctx context.Context, ino meta.Ino, shared bool) error
	// Give gives leases back. Giving what is not held succeeds.
	Give(ctx context.Context, inos ...meta.Ino) error
	// Trust returns when it is certain that what is held is still held: at once
	// as long as the service can be reached. It fails in bounded time.
	Trust(ctx context.Context) error
	// Left is for how long that is certain without another word from the service.
	Left() time.Duration
}

const (
	// leaseIdle is how long X of a closed file is kept: for the program
	// that opens it again at once, and for batches.
	leaseIdle = 2 * time.Second
	// leasesMax bounds the leases that are kept for nobody in particular.
	leasesMax = 4096
	// Two recalls within contendedBy make a file contended for contendedFor: each
	// write goes through and gives the lease back, for others are waiting anyway.
	contendedBy  = time.Second
	contendedFor = 5 * time.Second
)

// errFenced is why data was lost that others could not wait for.
var errFenced = fmt.Errorf("the session ended before it was stored: %w", meta.Lost)

// errUnowned says that the lease went between taking it and using it.
var errUnowned = errors.New("vfs: lease lost")

// Shared reports whether other mounts use the tree too.
func (fs *FS) Shared() bool { return fs.cfg.Leases != nil }

// leased says that X or S is ours. mu is held.
func (n *inode) leased() bool { return n.held || n.shared }

// hold notes that X or S is ours from now on, and what the attributes were since
// then. n.mu is held.
func (fs *FS) hold(n *inode, a meta.Attr, shared bool) {
	fs.mu.Lock()
	fs.held[n] = true
	fs.holdLocked(n)
	fs.mu.Unlock()
	fs.turn(n)
	n.held, n.shared, n.giving, n.used = !shared, shared, false, time.Now()
	n.attr, n.known, n.fresh = a, true, true
}

// keepHolding takes an unhold back. n.mu is held.
func (fs *FS) keepHolding(n *inode) {
	fs.mu.Lock()
	fs.held[n] = true
	fs.holdLocked(n)
	fs.mu.Unlock()
	n.held, n.giving = true, false
	n.tell()
}

// unhold notes that the lease is not ours any more. n.mu is held. Before others may
// have it, the inode has to be doubted if it was believed.
func (fs *FS) unhold(n *inode) (believed bool) {
	if !n.leased() {
		return false
	}
	// Where the belief has ended by itself, with the trust, others may have changed
	// the file already. To doubt it then would do harm: an answer on its way that says
	// so would not be believed, and the kernel go on with the pages that it has.
	believed = time.Now().Before(n.believed)
	n.held, n.shared, n.believed = false, false, time.Time{}
	fs.turn(n)
	fs.mu.Lock()
	delete(fs.held, n)
	fs.mu.Unlock()
	fs.put(n)
	return believed
}

// turn forgets what is true only with or without the lease. n.mu is held.
func (fs *FS) turn(n *inode) {
	n.gen++
	n.changed.Store(fs.changes.Add(1))
	n.fresh = false
	n.xgen++
	n.xnames = nil
	fs.moved(n, 0, 1<<63-1)
	n.tell()
}

// sure reports whether a lease is held, and certainly so. If none is, what is
// dirty is nothing to be seen: nobody knows whether it is stored, and whether
// others have written since. n.mu is held, before and after.
func (fs *FS) sure(ctx context.Context, n *inode) (bool, error) {
	if !n.leased() {
		return false, fs.settled(ctx, n)
	}
	n.mu.Unlock()
	err := fs.cfg.Leases.Trust(ctx)
	n.mu.Lock()
	if n.shared {
		n.used = time.Now()
	}
	if err == nil && !n.leased() {
		err = fs.settled(ctx, n)
	}
	return err == nil && n.leased(), err
}

// settled waits until it is known what became of data whose lease went with a
// command that nobody answered. n.mu is held, before and after.
func (fs *FS) settled(ctx context.Context, n *inode) error {
	if n.held || n.blank() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	for !n.held && !n.blank() {
		fs.kick(n)
		if err := fs.pause(ctx, n); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	return nil
}

// own sees to it that the file may be changed in memory. The caller holds op,
// so that the lease is not given back before the change is made; put1 notices
// when it goes all the same.
func (fs *FS) own(ctx context.Context, n *inode) error {
	if !fs.Shared() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	if err := fs.cfg.Leases.Trust(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case n.gone:
			return meta.NotExist
		case n.held:
			n.used = time.Now()
			return nil
		case n.moving || n.driving || !n.clean():
			// It is on its way, or what a session that is over has left is being dropped.
			if err := fs.pause(ctx, n); err != nil {
				return cmp.Or(context.Cause(ctx), err)
			}
		case n.shared:
			// Not turned into X by one command: two mounts that do so at once would
			// each hold what the other waits for.
			fs.startUnshare(n)
		default:
			return fs.take(ctx, n, false)
		}
	}
}

var errLate = fmt.Errorf("the lease of a file is on its way: %w", meta.TimedOut)

// take gets X or S. n.mu is held, before and after, and nobody else is moving it.
func (fs *FS) take(ctx context.Context, n *inode, shared bool) error {
	n.moving = true
	other := n.held // which is turned into S, or is ours still
	fs.unhold(n)
	epoch := fs.epoch.Load()
	n.mu.Unlock()
	var a meta.Attr
	err := fs.cfg.Leases.Take(ctx, n.ino, shared)
	owes := err == nil || other || !refused(err)
	if err == nil {
		a, err = fs.cfg.Meta.Attr(ctx, n.ino)
	}
	n.mu.Lock()
	n.moving = false
	defer n.tell()
	switch {
	case fs.epoch.Load() != epoch:
		// Whatever came of it was the old session's, or is given back when it is wanted.
		if err == nil {
			err = errFenced
		}
	case err == nil:
		fs.hold(n, a, shared)
	case owes:
		fs.owe(n)
	}
	return err
}

// owe notes that the lease may be ours at the service and has to be given back
// before it is taken again. n.mu is held.
func (fs *FS) owe(n *inode) {
	n.moving, n.owing = true, true
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.owed[n] = true
	fs.holdLocked(n)
}

// given ends giving back, which began with moving. n.mu is held.
func (fs *FS) given(n *inode, epoch uint64, err error) {
	n.moving = false
	if err != nil && fs.epoch.Load() == epoch {
		fs.owe(n)
	}
	n.tell()
}

// handBack stores what is dirty and gives the lease back.
func (fs *FS) handBack(ctx context.Context, n *inode, recalled bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fs.cfg.Wait, errLate)
	defer cancel()
	if err := n.op.Lock(ctx); err != nil {
		return err
	}
	defer n.op.Unlock()
	if now := time.Now(); recalled {
		n.mu.Lock()
		if n.held {
			if now.Sub(n.recalled) < contendedBy {
				n.contended = now.Add(contendedFor)
			}
			n.recalled = now
		}
		n.mu.Unlock()
	}
	if err := fs.surrender(ctx, n); err != nil {
		return err
	}
	n.mu.Lock()
	for n.moving && !n.owing {
		if err := fs.pause(ctx, n); err != nil {
			n.mu.Unlock()
			return err
		}
	}
	if !n.held && !n.owing && !recalled || n.owing || n.shared {
		n.mu.Unlock()
		return nil // it went with the last write, is given back with others, or was turned into S
	}
	fs.unhold(n)
	n.moving = true
	epoch := fs.epoch.Load()
	n.mu.Unlock()
	err := fs.cfg.Leases.Give(ctx, n.ino)
	n.mu.Lock()
	fs.given(n, epoch, err)
	n.mu.Unlock()
	return err
}

// surrender stores what is dirty, and gives the lease back with the last command
// that this takes; without any, it is kept. What there is no room for is
// dropped. The caller holds op.
func (fs *FS) surrender(ctx context.Context, n *inode) error {
	n.mu.Lock()
	n.giving = n.held
	n.mu.Unlock()
	err := fs.freeze(ctx, n, 1<<63-1)
	if err == nil {
		fs.thaw(n)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held {
		n.giving = false
	}
	if full(err) && len(n.queue) == 0 && !n.driving {
		fs.lose(n, err)
		err = nil
	}
	return err
}

// Recall gives back the lease of an inode that others wait for, with all that
// was written under it.
func (fs *FS) Recall(ctx context.Context, ino meta.Ino) error {
	n := fs.get(ino)
	defer fs.put(n)
	if done, err := fs.recallShared(ctx, n); done || err != nil {
		return err
	}
	n.mu.Lock()
	held := n.held
	n.mu.Unlock()
	if !held {
		// It may be a file that is being made here, whose number is not known yet.
		if err := fs.making.Lock(ctx); err != nil {
			return err
		}
		fs.making.Unlock()
	}
	if err := fs.handBack(ctx, n, true); err != nil {
		return err
	}
	_, err := fs.recallShared(ctx, n) // into which X was turned meanwhile
	return err
}

// returnLeases gives back those that nobody needs, and those that are owed.
func (fs *FS) returnLeases(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, fs.cfg.Wait)
	defer cancel()
	fs.mu.Lock()
	var list []*inode
	for n := range fs.owed {
		list = append(list, n) // and the hold that came with it
	}
	clear(fs.owed)
	many := len(fs.held) > leasesMax
	for n := range fs.held {
		fs.holdLocked(n)
		list = append(list, n)
	}
	fs.mu.Unlock()
	defer fs.putAll(list)
	epoch := fs.epoch.Load()
	var back []*inode
	var inos, doubts []meta.Ino
	for _, n := range list {
		n.mu.Lock()
		idle := n.idle(now, many)
		if idle {
			if fs.unhold(n) {
				doubts = append(doubts, n.ino)
			}
			n.moving = true
		}
		if idle || n.owing {
			n.owing = false
			back, inos = append(back, n), append(inos, n.ino)
		}
		n.mu.Unlock()
	}
	if len(back) == 0 {
		return
	}
	fs.doubtAll(doubts)
	err := fs.cfg.Leases.Give(ctx, inos...)
	for _, n := range back {
		n.mu.Lock()
		fs.given(n, epoch, err)
		n.mu.Unlock()
	}
}

// idle says that the lease is held and not needed: without one of many, for a
// while. mu is held.
func (n *inode) idle(now time.Time, many bool) bool {
	unused := now.Sub(n.used)
	switch {
	case n.moving:
		return false
	case n.held:
		return n.clean() && !n.driving && (many || n.opens == 0 && unused >= leaseIdle)
	case n.shared:
		return many || unused >= sharedIdle || n.opens == 0 && unused >= sharedClosed
	}
	return false
}

// startReturn starts returnLeases unless it is at work.
func (fs *FS) startReturn(work context.Context, now time.Time) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.returning || len(fs.held) == 0 && len(fs.owed) == 0 {
		return
	}
	fs.returning = true
	fs.work.Go(func() {
		fs.returnLeases(work, now)
		fs.mu.Lock()
		fs.returning = false
		fs.mu.Unlock()
	})
}

// Uses returns which of the inodes are open here, whose last name another mount
// took. Until the last is closed they are kept, and then dropped.
func (fs *FS) Uses(ctx context.Context, inos []meta.Ino) (used []meta.Ino, err error) {
	for _, ino := range inos {
		n := fs.peek(ino)
		if n == nil {
			continue
		}
		uses, err := fs.uses(ctx, n)
		fs.put(n)
		if err != nil {
			return nil, err
		}
		if uses {
			used = append(used, ino)
		}
	}
	return used, nil
}

func (fs *FS) uses(ctx context.Context, n *inode) (bool, error) {
	if err := n.life.Lock(ctx); err != nil { // whoever is opening it
		return false, err
	}
	defer n.life.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens == 0 || n.gone {
		return false, nil
	}
	n.gen++
	n.fresh = false
	if !n.kept {
		n.kept = true
		fs.mu.Lock()
		fs.holdLocked(n)
		fs.mu.Unlock()
	}
	return true, nil
}

// Fenced drops all that was known and written under a session that is over.
// Whoever has a file open whose data was lost is told once. It does not wait for
// calls under way, which fail.
func (fs *FS) Fenced() {
	fs.epoch.Add(1)
	fs.mu.Lock()
	list := make([]*inode, 0, len(fs.inodes))
	for _, n := range fs.inodes {
		fs.holdLocked(n)
		list = append(list, n)
	}
	fs.toDrop = nil
	fs.mu.Unlock()
	defer fs.putAll(list)
	var doubts []meta.Ino
	for _, n := range list {
		n.mu.Lock()
		if fs.fence(n) {
			doubts = append(doubts, n.ino)
		}
		n.mu.Unlock()
	}
	if len(doubts) > 0 {
		fs.later(func(context.Context) { fs.doubtAll(doubts) })
	}
}

func (fs *FS) fence(n *inode) (believed bool) {
	fs.turn(n)
	n.paged, n.giving = false, false
	believed = fs.unhold(n)
	if n.owing {
		n.owing, n.moving = false, false
		fs.mu.Lock()
		owed := fs.owed[n]
		delete(fs.owed, n)
		fs.mu.Unlock()
		if owed {
			fs.put(n)
		}
	}
	if n.kept {
		n.kept = false
		fs.put(n)
	}
	switch {
	case n.driving:
		n.doomed = true
	case !n.clean():
		fs.fail(n)
	}
	n.tell()
	return believed
}

// fail drops what a fenced session has left. n.mu is held, and there is no driver.
func (fs *FS) fail(n *inode) {
	n.doomed = false
	if n.clean() {
		fs.tidy(n)
		return
	}
	n.fails++
	n.err = fmt.Errorf("inode %d: %w", n.ino, errFenced)
	fs.lose(n, n.err)
}
