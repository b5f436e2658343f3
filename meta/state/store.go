package state

import (
	"bytes"
	"iter"

	"github.com/google/btree"
)

// Seq is a sequence of keys and values. Both stay valid and must not be modified.
type Seq = iter.Seq2[[]byte, []byte]

// A Reader is a view of an ordered key space. Its methods do not fail: a
// replica whose disk does must stop, because its answers would differ from the
// others'.
type Reader interface {
	Get(key []byte) (val []byte, ok bool)
	// Scan yields what has a key ≥ from and < to, in order. An empty to means no end.
	Scan(from, to []byte) Seq
}

// Limits of a row. The replica's disk has none that are lower.
const (
	MaxKey   = 4 << 10   // bytes of a key
	MaxValue = 512 << 10 // bytes of a value; a reply that is kept is one
)

// A Store is an ordered key space that can be changed. It keeps the slices it
// is given: they must not be modified afterwards. Keys are not empty.
type Store interface {
	Reader
	Set(key, val []byte)
	Delete(key []byte)
}

// After returns the first key that does not begin with prefix, the end of a
// scan of everything that does; nil if there is none.
func After(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// An Overlay is a Store that keeps changes in memory on top of a Reader, which
// must not change meanwhile. With a nil Reader it is a store in memory. It is
// not safe for concurrent use.
type Overlay struct {
	below   Reader
	changes *btree.BTreeG[change]
	bytes   int
	edits   uint64 // grows with every change, so that a scan notices one
}

type change struct {
	key, val []byte
	deleted  bool
}

// NewOverlay returns an overlay without changes.
func NewOverlay(below Reader) *Overlay {
	return &Overlay{below: below, changes: btree.NewG(16, func(a, b change) bool { return bytes.Compare(a.key, b.key) < 0 })}
}

// Size returns the number of changed keys and the bytes of their keys and values.
func (o *Overlay) Size() (count, size int) { return o.changes.Len(), o.bytes }

// Changes yields every changed key in order; a nil value means that it was deleted.
func (o *Overlay) Changes() Seq {
	return func(yield func(key, val []byte) bool) {
		o.changes.Ascend(func(c change) bool {
			if c.deleted {
				return yield(c.key, nil)
			}
			return yield(c.key, c.val)
		})
	}
}

func (o *Overlay) Get(key []byte) ([]byte, bool) {
	if c, ok := o.changes.Get(change{key: key}); ok {
		return c.val, !c.deleted
	}
	if o.below == nil {
		return nil, false
	}
	return o.below.Get(key)
}

func (o *Overlay) Set(key, val []byte) {
	if val == nil {
		val = []byte{} // nil means deleted, in Changes
	}
	o.put(change{key: key, val: val})
}

func (o *Overlay) Delete(key []byte) {
	if o.below == nil {
		o.edits++
		if old, ok := o.changes.Delete(change{key: key}); ok {
			o.bytes -= len(old.key) + len(old.val)
		}
		return
	}
	o.put(change{key: key, deleted: true})
}

func (o *Overlay) put(c change) {
	o.edits++
	if old, ok := o.changes.ReplaceOrInsert(c); ok {
		o.bytes -= len(old.key) + len(old.val)
	}
	o.bytes += len(c.key) + len(c.val)
}

// Scan may be used while its user writes: it yields what the keys that it has
// yet to reach hold when it reaches them. What it yields does not depend on
// which rows are changes and which lie below, since that differs between
// replicas.
func (o *Overlay) Scan(from, to []byte) Seq {
	return func(yield func(key, val []byte) bool) {
		next, stop := pull(o.below, from, to)
		defer stop()
		key, val, more := next()
		own, ours := o.first(from, to)
		var last []byte // the last key passed
		seen := o.edits
		for {
			if o.edits != seen && last != nil {
				own, ours = o.first(append(bytes.Clone(last), 0), to)
				seen = o.edits
			}
			var k, v []byte
			switch {
			case ours && (!more || bytes.Compare(own.key, key) <= 0):
				if more && bytes.Equal(own.key, key) {
					key, val, more = next()
				}
				c := own
				last = c.key
				own, ours = o.first(append(bytes.Clone(last), 0), to)
				if c.deleted {
					continue
				}
				k, v = c.key, c.val
			case more:
				k, v = key, val
				last = k
				key, val, more = next()
			default:
				return
			}
			if !yield(k, v) {
				return
			}
		}
	}
}

// first returns the first change with a key ≥ from and < to.
func (o *Overlay) first(from, to []byte) (change, bool) {
	var found change
	ok := false
	o.changes.AscendGreaterOrEqual(change{key: from}, func(c change) bool {
		if len(to) == 0 || bytes.Compare(c.key, to) < 0 {
			found, ok = c, true
		}
		return false
	})
	return found, ok
}

func pull(r Reader, from, to []byte) (next func() ([]byte, []byte, bool), stop func()) {
	if r == nil {
		return func() ([]byte, []byte, bool) { return nil, nil, false }, func() {}
	}
	return iter.Pull2(r.Scan(from, to))
}
