// Package mem keeps shards in memory. Tests use it, and whatever needs a store
// that may forget everything. Nothing survives the process.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"

	"dos/chunk"
)

// Store is a chunk.Store. Its zero value is empty, unlimited and ready to use.
type Store struct {
	// Capacity in bytes of contents; 0 is unlimited. Set it before use.
	Capacity int64

	mu     sync.RWMutex
	shards map[chunk.ID][]byte // guarded by mu; values are never modified
	used   int64               // guarded by mu
}

var (
	_ chunk.Store    = (*Store)(nil)
	_ chunk.Scrubber = (*Store)(nil)
)

func (s *Store) Put(ctx context.Context, id chunk.ID, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(data) == 0 || len(data) > chunk.MaxShard {
		return fmt.Errorf("mem: shard %v of %d bytes, want 1 to %d", id, len(data), chunk.MaxShard)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.shards[id]; ok {
		if !bytes.Equal(old, data) {
			return chunk.ErrExist
		}
		return nil
	}
	if s.Capacity != 0 && s.used+int64(len(data)) > s.Capacity {
		return chunk.ErrFull
	}
	if s.shards == nil {
		s.shards = make(map[chunk.ID][]byte)
	}
	s.shards[id] = bytes.Clone(data)
	s.used += int64(len(data))
	return nil
}

func (s *Store) find(ctx context.Context, id chunk.ID) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	data, ok := s.shards[id]
	if !ok {
		return nil, chunk.ErrNotExist
	}
	return data, nil
}

func (s *Store) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	data, err := s.find(ctx, id)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("mem: read of shard %v at offset %d", id, off)
	}
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *Store) Stat(ctx context.Context, id chunk.ID) (chunk.Info, error) {
	data, err := s.find(ctx, id)
	if err != nil {
		return chunk.Info{}, err
	}
	return chunk.Info{ID: id, Size: int64(len(data))}, nil
}

// Verify finds every shard good: there is no disk that could spoil it.
func (s *Store) Verify(ctx context.Context, id chunk.ID) error {
	_, err := s.find(ctx, id)
	return err
}

func (s *Store) Delete(ctx context.Context, ids ...chunk.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.used -= int64(len(s.shards[id]))
		delete(s.shards, id)
	}
	return nil
}

func (s *Store) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		s.mu.RLock()
		all := maps.Clone(s.shards)
		s.mu.RUnlock()
		for _, id := range slices.SortedFunc(maps.Keys(all), chunk.ID.Compare) {
			if id.Compare(from) < 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(chunk.Info{}, err)
				return
			}
			if !yield(chunk.Info{ID: id, Size: int64(len(all[id]))}, nil) {
				return
			}
		}
	}
}

func (s *Store) Usage(ctx context.Context) (chunk.Usage, error) {
	if err := ctx.Err(); err != nil {
		return chunk.Usage{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	capacity := s.Capacity
	if capacity == 0 {
		capacity = unlimited
	}
	return chunk.Usage{Capacity: capacity, Free: capacity - s.used, Used: s.used, Shards: int64(len(s.shards))}, nil
}

const unlimited = 1 << 40 // bytes: what an unlimited store says of itself
