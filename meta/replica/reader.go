package replica

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"dos/meta"
	"dos/meta/state"
)

// A view is a state.Reader of the store at one index. Until it is closed no
// version that it sees is dropped. It may be used by several goroutines.
type view struct {
	store  *store
	at     position
	latest int64 // the time of the latest command
	txn    *badger.Txn
}

func (s *store) view() (*view, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, fmt.Errorf("replica: stopped: %w", meta.Unavailable)
	}
	s.views[s.done.index]++
	return &view{s, s.done, s.latest, s.db.NewTransactionAt(s.done.index, false)}, nil
}

func (v *view) close() {
	v.txn.Discard()
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if v.store.views[v.at.index]--; v.store.views[v.at.index] == 0 {
		delete(v.store.views, v.at.index)
		v.store.moved.Broadcast()
	}
}

// Get returns a copy.
func (v *view) Get(key []byte) ([]byte, bool) {
	val, err := get(v.txn, key)
	switch {
	case err == nil:
		return val, true
	case errors.Is(err, badger.ErrKeyNotFound):
		return nil, false
	}
	// Whoever goes on now would take a damaged table for a missing row.
	panic(fmt.Sprintf("replica: reading row %q at index %d: %v", key, v.at.index, err))
}

// Scan yields copies. It fetches nothing ahead.
func (v *view) Scan(from, to []byte) state.Seq {
	return func(yield func(key, val []byte) bool) {
		opt := badger.DefaultIteratorOptions
		opt.PrefetchValues = false
		opt.Prefix = commonPrefix(from, to)
		it := v.txn.NewIterator(opt)
		defer it.Close()
		for it.Seek(from); it.Valid(); it.Next() {
			item := it.Item()
			if len(to) > 0 && bytes.Compare(item.Key(), to) >= 0 {
				return
			}
			val, err := item.ValueCopy(nil)
			if err != nil {
				panic(fmt.Sprintf("replica: reading row %q at index %d: %v", item.Key(), v.at.index, err))
			}
			if !yield(item.KeyCopy(nil), val) {
				return
			}
		}
	}
}

// commonPrefix is what every key ≥ from and < to begins with.
func commonPrefix(from, to []byte) []byte {
	n := 0
	for n < len(from) && n < len(to) && from[n] == to[n] {
		n++
	}
	return from[:n]
}
