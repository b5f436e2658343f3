// Package lock is who has a file locked and who waits for that: flock(2) and
// fcntl(2) for all machines. A lock belongs to an owner, a process or an open
// file, in a session, and ends with it. The room knows no files, no kernel and
// no time; waiting is done by whoever asks again (Await).
//
// Waiters of an inode stand in one queue. Whenever something changes, whoever is
// not kept waiting by a lock or by an earlier waiter gets the lock in the same
// command, shared ones together. Two exceptions keep the queue from stopping
// what would go on without it: an owner who has a lock of the kind on the inode
// already, and one for whom the earlier waiter itself waits, are held up by
// locks alone. Who does not wait, but tries, looks at locks only, as in Linux.
//
// A lock that was waited for stays apart from its owner's others until the owner
// does something else on the inode, so that Cancel can still take it back and
// leave what was there before.
//
// Keys, numbers big-endian, values CBOR:
//
//	"6i" ino(8)                                file
//	"6s" session(8) ino(8)                     empty: the session is in that file's row
//	"6n" session(8)                            how many of those there are
//	"6q" session(8)                            queued
//	"6w" session(8) kind(1) owner(8) number(8) ino(8): a place in a queue
package lock

import (
	"fmt"
	"slices"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpSet, "lock.set", set)
	state.Handle(m, OpCancel, "lock.cancel", cancel)
	state.Handle(m, OpDrop, "lock.drop", drop)
	state.Query(m, OpTest, "lock.test", test)
	state.Query(m, OpAwait, "lock.await", await)
}

type none = struct{}

// own returns who the command speaks for.
func own(tx *state.Tx, kind meta.LockKind, number uint64) (owner, error) {
	if tx.Session == 0 || kind != meta.Flock && kind != meta.Record {
		return owner{}, fmt.Errorf("a lock of kind %d by session %d: %w", kind, tx.Session, meta.Invalid)
	}
	return owner{tx.Session, kind, number}, nil
}

func check(l meta.Lock) error {
	if l.Ino == 0 || l.Mode > meta.Exclusive || l.First < 0 || l.Last < l.First ||
		l.Kind == meta.Flock && (l.First != 0 || l.Last != meta.LockEnd) {
		return fmt.Errorf("lock %+v: %w", l, meta.Invalid)
	}
	return nil
}

func set(tx *state.Tx, req Set) (Outcome, error) {
	l := req.Lock
	me, err := own(tx, l.Kind, l.Owner)
	if err == nil {
		err = check(l)
	}
	if err != nil {
		return Outcome{}, err
	}
	w := begin(tx, tx.Session)
	f := w.file(l.Ino)
	f.settle(me)
	want := hold{Session: me.Session, Kind: l.Kind, Owner: l.Owner, Mode: l.Mode, First: l.First, Last: l.Last, PID: l.PID}
	out, err := w.set(f, want, req.Wait)
	if err != nil {
		return Outcome{}, err
	}
	w.grant(f)
	return out, w.done()
}

// set decides what becomes of want. It does not look at waiters that it sets free.
func (w *work) set(f *file, want hold, wait bool) (Outcome, error) {
	if want.Mode == meta.Unlocked {
		return Outcome{}, f.put(want)
	}
	if want.Kind == meta.Flock && !f.covers(want) {
		f.Locks = apply(f.Locks, want.as(meta.Unlocked)) // changing it is not atomic: flock(2)
		f.dirty = true
	}
	if at := slices.IndexFunc(f.Waits, func(q place) bool { return q.Hold.same(want) }); wait && at >= 0 {
		return Outcome{Wait: f.Waits[at].Number}, nil
	}
	if f.free(want) && (!wait || !w.heldUp(f, want, len(f.Waits))) {
		return Outcome{}, f.put(want)
	}
	if !wait {
		return Outcome{Busy: true}, nil
	}
	if want.Kind == meta.Record && slices.ContainsFunc(f.holders(want), func(o owner) bool { return w.waitsFor(o, want.owner(), false) }) {
		return Outcome{}, fmt.Errorf("inode %d, bytes %d to %d: %w", f.ino, want.First, want.Last, meta.Deadlock)
	}
	number, err := w.enqueue(f, want)
	if err != nil {
		return Outcome{}, err
	}
	// Somebody else may wait, behind somebody who waits for this owner, for
	// nothing but his turn. That must not become a circle.
	w.unknot(want.owner())
	return Outcome{Wait: number}, nil
}

func cancel(tx *state.Tx, req Cancel) (none, error) {
	me, err := own(tx, req.Kind, req.Owner)
	if err != nil {
		return none{}, err
	}
	w := begin(tx, tx.Session)
	f := w.file(req.Ino)
	at := f.find(tx.Session, req.Wait)
	if at < 0 || f.Waits[at].Hold.owner() != me {
		return none{}, nil
	}
	w.leave(f, at)
	w.grant(f)
	return none{}, w.done()
}

func drop(tx *state.Tx, req Drop) (none, error) {
	me, err := own(tx, req.Kind, req.Owner)
	if err != nil {
		return none{}, err
	}
	w := begin(tx, tx.Session)
	w.drop(w.file(req.Ino), func(h hold) bool { return h.owner() == me })
	return none{}, w.done()
}

// drop gives up the locks and places on f that are somebody's, and grants what
// that sets free.
func (w *work) drop(f *file, is func(hold) bool) {
	for i := len(f.Waits) - 1; i >= 0; i-- {
		if is(f.Waits[i].Hold) {
			w.leave(f, i)
		}
	}
	if n := len(f.Locks); n > 0 {
		f.Locks = slices.DeleteFunc(f.Locks, is)
		f.dirty = f.dirty || len(f.Locks) != n
	}
	w.grant(f)
}

// Release gives up what a session that has ended has and waits for on at most
// limit inodes; it is a session.Release.
func Release(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	var inos []meta.Ino
	for k := range tx.Scan(filesOf(s)) {
		if len(inos) == limit {
			more = true
			break
		}
		inos = append(inos, inoOf(k))
	}
	w := begin(tx, s)
	for _, ino := range inos {
		w.drop(w.file(ino), func(h hold) bool { return h.Session == s })
	}
	if err := w.done(); err != nil {
		panic(fmt.Sprintf("lock: releasing session %d: %v", s, err)) // nothing grows
	}
	if !more {
		remove(tx, sessionKey('n', s))
		remove(tx, sessionKey('q', s))
	}
	return len(inos), more
}

func test(r state.Reader, req Test) (meta.LockHolder, error) {
	l := req.Lock
	if err := check(l); err != nil {
		return meta.LockHolder{}, err
	}
	f := load(r, l.Ino)
	want := hold{Session: req.Session, Kind: l.Kind, Owner: l.Owner, Mode: l.Mode, First: l.First, Last: l.Last}
	var first *hold
	for h := range f.held() {
		if h.against(want) && (first == nil || h.First < first.First) {
			first = &h
		}
	}
	if first == nil {
		return meta.LockHolder{}, nil
	}
	return meta.LockHolder{Session: first.Session, Lock: meta.Lock{
		Ino: l.Ino, Kind: first.Kind, Mode: first.Mode, Owner: first.Owner, First: first.First, Last: first.Last, PID: first.PID,
	}}, nil
}

func await(r state.Reader, req Await) (Waiting, error) {
	if err := session.Check(r, req.Session); err != nil {
		return Waiting{}, err
	}
	var q queued
	read(r, sessionKey('q', req.Session), &q)
	reply := Waiting{Grants: q.Grants, Last: q.Last}
	prefix := sessionKey('w', req.Session)
	for k := range r.Scan(prefix, state.After(prefix)) {
		reply.Waits = append(reply.Waits, numberOf(k))
	}
	return reply, nil
}
