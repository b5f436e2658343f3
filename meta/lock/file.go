package lock

import (
	"fmt"
	"iter"
	"slices"

	"dos/meta"
)

// An owner is who has locks: two locks of one owner are never in each other's way.
type owner struct {
	Session meta.SessionID
	Kind    meta.LockKind
	Number  uint64
}

// A hold is a lock as an inode's row has it.
type hold struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Kind    meta.LockKind  `cbor:"2,keyasint,omitempty"`
	Owner   uint64         `cbor:"3,keyasint,omitempty"`
	Mode    meta.LockMode  `cbor:"4,keyasint,omitempty"`
	First   int64          `cbor:"5,keyasint,omitempty"`
	Last    int64          `cbor:"6,keyasint,omitempty"`
	PID     uint32         `cbor:"7,keyasint,omitempty"`
}

func (h hold) owner() owner { return owner{h.Session, h.Kind, h.Owner} }

func (h hold) as(mode meta.LockMode) hold {
	h.Mode = mode
	return h
}

// same reports whether both are the same lock, whichever process took it.
func (h hold) same(o hold) bool {
	h.PID = o.PID
	return h == o
}

func (h hold) overlaps(o hold) bool { return h.First <= o.Last && o.First <= h.Last }

// against reports whether the two, of different owners, cannot be at the same time.
func (h hold) against(o hold) bool {
	return h.Kind == o.Kind && h.owner() != o.owner() && h.overlaps(o) && (h.Mode == meta.Exclusive || o.Mode == meta.Exclusive)
}

// A place is one in an inode's queue, or the lock that came of it.
type place struct {
	Number  uint64 `cbor:"1,keyasint,omitempty"`
	Hold    hold   `cbor:"2,keyasint,omitempty"`
	Granted bool   `cbor:"3,keyasint,omitempty"` // it is a lock, on top of the owner's others
}

// A file is the row of an inode. Locks of one owner do not overlap; those of the
// same mode do not touch. Waits are in the order in which they came.
type file struct {
	Locks []hold  `cbor:"1,keyasint,omitempty"`
	Waits []place `cbor:"2,keyasint,omitempty"`

	ino   meta.Ino
	dirty bool
}

// held yields everything that is locked.
func (f *file) held() iter.Seq[hold] {
	return func(yield func(hold) bool) {
		for _, h := range f.Locks {
			if !yield(h) {
				return
			}
		}
		for _, q := range f.Waits {
			if q.Granted && !yield(q.Hold) {
				return
			}
		}
	}
}

// free reports whether no lock of another owner is in the way.
func (f *file) free(want hold) bool {
	for h := range f.held() {
		if h.against(want) {
			return false
		}
	}
	return true
}

// holders returns the owners of the locks that are in the way.
func (f *file) holders(want hold) (list []owner) {
	for h := range f.held() {
		if h.against(want) && !slices.Contains(list, h.owner()) {
			list = append(list, h.owner())
		}
	}
	return list
}

// has reports whether an owner has any lock here.
func (f *file) has(o owner) bool {
	for h := range f.held() {
		if h.owner() == o {
			return true
		}
	}
	return false
}

// covers reports whether want is, as it is, part of a lock that its owner has.
func (f *file) covers(want hold) bool {
	return slices.ContainsFunc(f.Locks, func(h hold) bool {
		return h.owner() == want.owner() && h.Mode == want.Mode && h.First <= want.First && want.Last <= h.Last
	})
}

// put makes want so.
func (f *file) put(want hold) error {
	if want.Mode != meta.Unlocked && f.covers(want) {
		return nil
	}
	was := len(f.Locks)
	f.Locks = apply(f.Locks, want)
	f.dirty = true
	if n := len(f.Locks); n > was && n > LocksMax {
		return fmt.Errorf("inode %d has %d locks: %w", f.ino, was, meta.Quota)
	}
	return nil
}

// settle makes what an owner waited for and got part of his locks.
func (f *file) settle(o owner) {
	f.Waits = slices.DeleteFunc(f.Waits, func(q place) bool {
		if !q.Granted || q.Hold.owner() != o {
			return false
		}
		f.Locks = apply(f.Locks, q.Hold)
		f.dirty = true
		return true
	})
}

// find returns where in the queue a place is, -1 if it is not.
func (f *file) find(s meta.SessionID, number uint64) int {
	return slices.IndexFunc(f.Waits, func(q place) bool { return q.Number == number && q.Hold.Session == s })
}

// apply returns the locks with l put over what its owner had, as fcntl(2) says:
// what it covers is replaced, what it cuts is split, and what it touches in the
// same mode becomes one with it. Unlocked leaves a hole.
func apply(locks []hold, l hold) []hold {
	out := make([]hold, 0, len(locks)+2)
	for _, h := range locks {
		switch {
		case h.owner() != l.owner():
			out = append(out, h)
		case h.Mode == l.Mode && (h.overlaps(l) || touch(h, l) || touch(l, h)):
			l.First, l.Last = min(h.First, l.First), max(h.Last, l.Last)
		case !h.overlaps(l):
			out = append(out, h)
		default:
			if h.First < l.First {
				left := h
				left.Last = l.First - 1
				out = append(out, left)
			}
			if h.Last > l.Last {
				right := h
				right.First = l.Last + 1
				out = append(out, right)
			}
		}
	}
	if l.Mode != meta.Unlocked {
		out = append(out, l)
	}
	return out
}

// touch reports whether b begins where a ends.
func touch(a, b hold) bool { return a.Last < b.First && a.Last+1 == b.First }
