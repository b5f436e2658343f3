package fuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
	"dos/procfs"
)

// Locks is the lock service for files (meta/client's Locker). What is locked when
// the mount ends, ends with the session that the Locks are of.
type Locks interface {
	// Try takes, changes or, with mode Unlocked, gives up a lock. It is meta.Busy
	// if another owner is in the way, and meta.Expired if what the owner had was
	// lost, until it is dropped.
	Try(ctx context.Context, l meta.Lock) error
	// Wait is Try, but waits until ctx ends. Whoever then waits again for the same
	// before long goes on where he was. It is meta.Deadlock if waiting would never
	// end, and meta.Conflict if the owner is dropped meanwhile.
	Wait(ctx context.Context, l meta.Lock) error
	// Drop gives up all that an owner has on an inode, now or, after an error, later.
	Drop(ctx context.Context, ino meta.Ino, kind meta.LockKind, owner uint64) error
	// Test returns a lock that is in the way of l, with mode Unlocked if there is
	// none. Its PID is one of this machine, or 0.
	Test(ctx context.Context, l meta.Lock) (meta.Lock, error)
}

// A lockOwner is who may have locks on an inode. The kernel gives owners numbers:
// of a process (its table of open files) for fcntl locks, of an open file for
// flock and for open file description locks. They are addresses in disguise,
// hence unique only in this mount, and used again when the owner is gone.
type lockOwner struct {
	ino    meta.Ino
	kind   meta.LockKind
	number uint64
}

// lockUsers are the owners that took a lock, with the handles they took it by.
//
// The kernel tells of an owner's end in two ways. A process that closes any
// descriptor of an inode has no fcntl locks on it any more: FLUSH names it. An
// open file that is gone has neither flock nor open file description locks:
// RELEASE names the handle. (It also names the owner, of flock locks alone.)
type lockUsers struct {
	mu      sync.Mutex
	handles map[lockOwner]map[uint64]bool // guarded by mu
	owners  map[uint64]map[lockOwner]bool // by handle; guarded by mu
}

func (u *lockUsers) add(o lockOwner, fh uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.handles == nil {
		u.handles = make(map[lockOwner]map[uint64]bool)
		u.owners = make(map[uint64]map[lockOwner]bool)
	}
	if u.handles[o] == nil {
		u.handles[o] = make(map[uint64]bool)
	}
	if u.owners[fh] == nil {
		u.owners[fh] = make(map[lockOwner]bool)
	}
	u.handles[o][fh], u.owners[fh][o] = true, true
}

// end forgets an owner, and reports whether it was there.
func (u *lockUsers) end(o lockOwner) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	handles, ok := u.handles[o]
	for fh := range handles {
		u.part(o, fh)
	}
	return ok
}

// close forgets a handle, and returns the owners that had no other.
func (u *lockUsers) close(fh uint64) (over []lockOwner) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for o := range u.owners[fh] {
		if u.part(o, fh); u.handles[o] == nil {
			over = append(over, o)
		}
	}
	return over
}

// part forgets that an owner used a handle. u.mu is held.
func (u *lockUsers) part(o lockOwner, fh uint64) {
	if delete(u.handles[o], fh); len(u.handles[o]) == 0 {
		delete(u.handles, o)
	}
	if delete(u.owners[fh], o); len(u.owners[fh]) == 0 {
		delete(u.owners, fh)
	}
}

// lockOf reads a request about a lock.
func (f *files) lockOf(in *raw.LkIn) (meta.Lock, error) {
	l := meta.Lock{
		Ino: f.ino(in.NodeId), Kind: meta.Record, Owner: in.Owner,
		First: int64(in.Lk.Start), Last: int64(in.Lk.End), PID: in.Lk.Pid,
	}
	if in.LkFlags&raw.LK_FLOCK != 0 {
		l.Kind, l.First, l.Last = meta.Flock, 0, meta.LockEnd
	}
	switch in.Lk.Typ {
	case syscall.F_RDLCK:
		l.Mode = meta.Shared
	case syscall.F_WRLCK:
		l.Mode = meta.Exclusive
	case syscall.F_UNLCK:
	default:
		return l, syscall.EINVAL
	}
	if isSpecial(in.NodeId) {
		return l, syscall.ENOLCK
	}
	return l, nil
}

func (f *files) GetLk(_ <-chan struct{}, in *raw.LkIn, out *raw.LkOut) raw.Status {
	l, err := f.lockOf(in)
	if err != nil {
		return f.lockStatus(err)
	}
	way, err := f.locks.Test(f.ctx, l)
	if err != nil {
		return f.lockStatus(err)
	}
	out.Lk = raw.FileLock{Start: uint64(way.First), End: uint64(way.Last), Typ: syscall.F_UNLCK, Pid: way.PID}
	switch way.Mode {
	case meta.Shared:
		out.Lk.Typ = syscall.F_RDLCK
	case meta.Exclusive:
		out.Lk.Typ = syscall.F_WRLCK
	}
	return raw.OK
}

func (f *files) SetLk(_ <-chan struct{}, in *raw.LkIn) raw.Status {
	if isSpecial(in.NodeId) {
		return f.specialLock(f.by(&in.InHeader), in, false)
	}
	return f.setLock(in, f.by(&in.InHeader), f.locks.Try)
}

// SetLkw waits, and ends when its caller is interrupted: the kernel then calls
// again, unless the program has asked to be told, or is dying.
func (f *files) SetLkw(cancel <-chan struct{}, in *raw.LkIn) raw.Status {
	if in.Lk.Typ == syscall.F_UNLCK {
		return f.SetLk(cancel, in)
	}
	if isSpecial(in.NodeId) {
		return f.specialLock(waiting{cancel, in.Pid}, in, true)
	}
	return f.setLock(in, waiting{cancel, in.Pid}, f.locks.Wait)
}

func (f *files) setLock(in *raw.LkIn, ctx context.Context, set func(context.Context, meta.Lock) error) raw.Status {
	l, err := f.lockOf(in)
	if err != nil {
		return f.lockStatus(err)
	}
	o := lockOwner{l.Ino, l.Kind, l.Owner}
	f.lockers.add(o, in.Fh)
	err = set(ctx, l)
	f.lockers.add(o, in.Fh) // another thread may have closed the inode meanwhile; RELEASE is yet to come
	return f.lockStatus(err)
}

// specialLock locks what a special file stands for. Its lock is the handle's, which
// gives it up when it is closed.
func (f *files) specialLock(ctx context.Context, in *raw.LkIn, wait bool) raw.Status {
	mode := meta.Unlocked
	switch in.Lk.Typ {
	case syscall.F_RDLCK:
		mode = meta.Shared
	case syscall.F_WRLCK:
		mode = meta.Exclusive
	}
	h, ok := f.open.get(in.Fh)
	if !ok || h.special == nil {
		return raw.EBADF
	}
	l, ok := h.special.Handle.(procfs.Locker)
	if !ok || in.LkFlags&raw.LK_FLOCK == 0 {
		return raw.Status(syscall.ENOLCK)
	}
	err := l.Lock(ctx, mode, wait)
	if errors.Is(err, meta.Busy) {
		return raw.EAGAIN
	}
	return f.status("lock", err)
}

// lockStatus is status for what means something else of a lock.
func (f *files) lockStatus(err error) raw.Status {
	number := syscall.Errno(0)
	switch {
	case errors.Is(err, meta.Busy):
		return raw.EAGAIN
	case errors.Is(err, meta.Conflict): // closed meanwhile
		return raw.EBADF
	case errors.Is(err, meta.Quota):
		number = syscall.ENOLCK
	case errors.Is(err, meta.Expired): // he is told, and has to close the file
		number = syscall.EIO
	default:
		return f.status("lock", err)
	}
	return f.status("lock", fmt.Errorf("%v: %w", err, number))
}

// flushLocks gives up the fcntl locks of a process that closes a descriptor.
func (f *files) flushLocks(ino meta.Ino, owner uint64) raw.Status {
	o := lockOwner{ino, meta.Record, owner}
	if f.locks == nil || !f.lockers.end(o) {
		return raw.OK
	}
	return f.lockStatus(f.locks.Drop(f.ctx, o.ino, o.kind, o.number))
}

// releaseLocks gives up the locks of an open file that is gone.
func (f *files) releaseLocks(fh uint64) {
	if f.locks == nil {
		return
	}
	for _, o := range f.lockers.close(fh) {
		if err := f.locks.Drop(f.ctx, o.ino, o.kind, o.number); err != nil {
			f.log.Warn("fuse: giving up the locks of a closed file failed; it is tried again", "ino", uint64(o.ino), "err", err)
		}
	}
}
