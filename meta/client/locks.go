package client

import (
	"context"

	"dos/meta"
	"dos/meta/lock"
)

// Locks are the calls about locks of files, for the session of the Caller. A
// Locker makes of them locks that can be waited for.
type Locks struct {
	Caller  Caller
	Session meta.SessionID
}

// Set takes, changes or gives up a lock, or takes a place in the queue for it.
func (l Locks) Set(ctx context.Context, want meta.Lock, wait bool) (out lock.Outcome, err error) {
	err = l.Caller.Call(ctx, lock.OpSet, lock.Set{Lock: want, Wait: wait}, &out)
	return out, err
}

// Cancel gives up an owner's place, also if the lock was granted meanwhile.
func (l Locks) Cancel(ctx context.Context, ino meta.Ino, place uint64, kind meta.LockKind, owner uint64) error {
	return l.Caller.Call(ctx, lock.OpCancel, lock.Cancel{Ino: ino, Wait: place, Kind: kind, Owner: owner}, nil)
}

// Drop gives up all that an owner has and waits for on an inode.
func (l Locks) Drop(ctx context.Context, ino meta.Ino, kind meta.LockKind, owner uint64) error {
	return l.Caller.Call(ctx, lock.OpDrop, lock.Drop{Ino: ino, Kind: kind, Owner: owner}, nil)
}

// Test says who is in the way of a lock.
func (l Locks) Test(ctx context.Context, want meta.Lock) (in meta.LockHolder, err error) {
	err = l.Caller.Call(ctx, lock.OpTest, lock.Test{Session: l.Session, Lock: want}, &in)
	return in, err
}

// Await says what the session still waits for. A member holds the answer back
// for some seconds while nothing was granted since the answer seen.
func (l Locks) Await(ctx context.Context, seen lock.Waiting) (now lock.Waiting, err error) {
	err = l.Caller.Call(ctx, lock.OpAwait, lock.Await{Session: l.Session, Seen: seen.Grants}, &now)
	return now, err
}
