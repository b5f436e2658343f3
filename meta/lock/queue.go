package lock

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

// queued is what a session has in queues.
type queued struct {
	Last   uint64 `cbor:"1,keyasint,omitempty"` // the number that was given last
	Grants uint64 `cbor:"2,keyasint,omitempty"` // places that became locks
	Places int    `cbor:"3,keyasint,omitempty"` // in all queues
}

func fileKey(ino meta.Ino) []byte {
	return binary.BigEndian.AppendUint64([]byte("6i"), uint64(ino))
}

func sessionKey(table byte, s meta.SessionID) []byte {
	return binary.BigEndian.AppendUint64([]byte{'6', table}, uint64(s))
}

// AwaitKey is the row that changes whenever the answer to Await becomes another.
func AwaitKey(s meta.SessionID) []byte { return sessionKey('q', s) }

func presenceKey(s meta.SessionID, ino meta.Ino) []byte {
	return binary.BigEndian.AppendUint64(sessionKey('s', s), uint64(ino))
}

func filesOf(s meta.SessionID) (from, to []byte) {
	from = sessionKey('s', s)
	return from, state.After(from)
}

// placesOf is the beginning of the keys of an owner's places.
func placesOf(o owner) []byte {
	return binary.BigEndian.AppendUint64(append(sessionKey('w', o.Session), byte(o.Kind)), o.Number)
}

func placeKey(o owner, number uint64, ino meta.Ino) []byte {
	k := binary.BigEndian.AppendUint64(placesOf(o), number)
	return binary.BigEndian.AppendUint64(k, uint64(ino))
}

func inoOf(key []byte) meta.Ino { return meta.Ino(binary.BigEndian.Uint64(key[len(key)-8:])) }

func numberOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-16:]) }

func read(r state.Reader, key []byte, row any) {
	if val, ok := r.Get(key); ok {
		state.MustUnmarshal(val, row)
	}
}

func remove(tx *state.Tx, key []byte) {
	if _, ok := tx.Get(key); ok {
		tx.Delete(key)
	}
}

func load(r state.Reader, ino meta.Ino) *file {
	f := &file{ino: ino}
	read(r, fileKey(ino), f)
	return f
}

// A work is the rows of inodes that one command has read, for a session, and may change.
type work struct {
	tx    *state.Tx
	me    meta.SessionID
	files map[meta.Ino]*file
	look  int // how many owners may still be looked at
}

func begin(tx *state.Tx, me meta.SessionID) *work {
	return &work{tx: tx, me: me, files: make(map[meta.Ino]*file), look: searchMax}
}

func (w *work) file(ino meta.Ino) *file {
	f, ok := w.files[ino]
	if !ok {
		f = load(w.tx, ino)
		w.files[ino] = f
	}
	return f
}

// loaded returns the inodes that were read, in order.
func (w *work) loaded() (list []*file) {
	for _, ino := range slices.Sorted(maps.Keys(w.files)) {
		list = append(list, w.files[ino])
	}
	return list
}

// done writes what has changed.
func (w *work) done() error {
	for _, f := range w.loaded() {
		if !f.dirty {
			continue
		}
		if len(f.Locks)+len(f.Waits) > 0 {
			w.tx.Set(fileKey(f.ino), state.Marshal(f))
		} else {
			remove(w.tx, fileKey(f.ino))
		}
		if err := w.present(f); err != nil {
			return err
		}
	}
	return nil
}

// present notes whether the session has anything on f.
func (w *work) present(f *file) error {
	is := slices.ContainsFunc(f.Locks, func(h hold) bool { return h.Session == w.me }) ||
		slices.ContainsFunc(f.Waits, func(q place) bool { return q.Hold.Session == w.me })
	key := presenceKey(w.me, f.ino)
	if _, was := w.tx.Get(key); is == was {
		return nil
	}
	var files uint64
	read(w.tx, sessionKey('n', w.me), &files)
	if is {
		if files++; files > SessionFiles {
			return fmt.Errorf("the session has locks on %d files: %w", SessionFiles, meta.Quota)
		}
		w.tx.Set(key, []byte{})
	} else {
		files--
		w.tx.Delete(key)
	}
	if files > 0 {
		w.tx.Set(sessionKey('n', w.me), state.Marshal(files))
	} else {
		w.tx.Delete(sessionKey('n', w.me))
	}
	return nil
}

// enqueue puts want at the end of the queue and returns the number of its place.
func (w *work) enqueue(f *file, want hold) (uint64, error) {
	var q queued
	read(w.tx, AwaitKey(w.me), &q)
	waiting := 0
	for _, each := range f.Waits {
		if !each.Granted {
			waiting++
		}
	}
	switch {
	case q.Places >= SessionWaits:
		return 0, fmt.Errorf("the session waits for %d locks: %w", q.Places, meta.Quota)
	case waiting >= WaitsMax, len(f.Locks)+len(f.Waits) >= LocksMax+WaitsMax:
		return 0, fmt.Errorf("%d wait for inode %d: %w", waiting, f.ino, meta.Quota)
	}
	q.Last++
	q.Places++
	w.tx.Set(AwaitKey(w.me), state.Marshal(q))
	w.tx.Set(placeKey(want.owner(), q.Last, f.ino), []byte{})
	f.Waits = append(f.Waits, place{Number: q.Last, Hold: want})
	f.dirty = true
	return q.Last, nil
}

// unqueue forgets a place that is one no more.
func (w *work) unqueue(f *file, at place, granted bool) {
	o := at.Hold.owner()
	w.tx.Delete(placeKey(o, at.Number, f.ino))
	var q queued
	read(w.tx, AwaitKey(o.Session), &q)
	if q.Places--; granted {
		q.Grants++
	}
	w.tx.Set(AwaitKey(o.Session), state.Marshal(q))
	f.dirty = true
}

// leave takes a place, or the lock that came of it, away.
func (w *work) leave(f *file, at int) {
	if q := f.Waits[at]; !q.Granted {
		w.unqueue(f, q, false)
	}
	f.Waits = slices.Delete(f.Waits, at, at+1)
	f.dirty = true
}

// grant gives the lock to everyone in the queue whom nothing keeps waiting.
func (w *work) grant(f *file) {
	for again := true; again; {
		again = false
		for i := range f.Waits {
			q := &f.Waits[i]
			if !q.Granted && f.free(q.Hold) && !w.heldUp(f, q.Hold, i) {
				q.Granted, again = true, true
				w.unqueue(f, *q, true)
			}
		}
	}
}

// heldUp reports whether one of the first n in the queue comes before want.
func (w *work) heldUp(f *file, want hold, n int) bool {
	me := want.owner()
	return slices.ContainsFunc(f.Waits[:n], func(q place) bool { return !q.Granted && q.Hold.against(want) }) && !f.has(me) &&
		slices.ContainsFunc(f.Waits[:n], func(q place) bool {
			return !q.Granted && q.Hold.against(want) && !w.waitsFor(q.Hold.owner(), me, true)
		})
}

// waitsFor reports whether an owner waits for another's locks, perhaps through
// others; with turns, also for the places of those who came earlier.
func (w *work) waitsFor(from, target owner, turns bool) (found bool) {
	w.follow(from, turns, func(o owner) bool {
		found = found || o == target
		return !found
	})
	return found
}

// unknot grants what a circle through an owner's new place keeps waiting, of
// which only turns are a part. Everything on such a circle is looked at.
func (w *work) unknot(me owner) {
	closed := false
	w.follow(me, true, func(o owner) bool {
		closed = closed || o == me
		return true
	})
	if closed {
		for _, f := range w.loaded() {
			w.grant(f)
		}
	}
}

// follow visits the owners that one waits for, directly or not, until visit
// returns false. It may visit one more than once.
func (w *work) follow(from owner, turns bool, visit func(owner) bool) {
	seen := map[owner]bool{from: true}
	for next := []owner{from}; len(next) > 0; next = next[1:] {
		if w.look--; w.look < 0 {
			return
		}
		for _, o := range w.before(next[0], turns) {
			if !visit(o) {
				return
			}
			if !seen[o] {
				seen[o] = true
				next = append(next, o)
			}
		}
	}
}

// before returns the owners that one waits for directly.
func (w *work) before(o owner, turns bool) (list []owner) {
	prefix := placesOf(o)
	for k := range w.tx.Scan(prefix, state.After(prefix)) {
		f := w.file(inoOf(k))
		at := f.find(o.Session, numberOf(k))
		if at < 0 {
			panic(fmt.Sprintf("lock: place %d of %+v is not in the queue of inode %d", numberOf(k), o, f.ino))
		}
		want := f.Waits[at].Hold
		list = append(list, f.holders(want)...)
		for _, q := range f.Waits[:at] {
			if turns && !q.Granted && q.Hold.against(want) {
				list = append(list, q.Hold.owner())
			}
		}
	}
	return list
}
