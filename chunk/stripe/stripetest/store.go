package stripetest

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dos/chunk"
	"dos/chunk/mem"
)

// A Store is a store in memory with faults, which may be switched at any time.
type Store struct {
	down atomic.Bool
	// Gets and Puts count the calls of ReadAt and Put.
	Gets, Puts atomic.Int64

	mu       sync.Mutex
	inner    *mem.Store        // guarded by mu
	corrupt  map[chunk.ID]bool // guarded by mu
	fail     error             // guarded by mu
	hang     chan struct{}     // closed when the hang ends; guarded by mu
	deaf     bool              // hangs longer than the context; guarded by mu
	slow     time.Duration     // guarded by mu
	capacity int64             // guarded by mu
	breaks   int               // entries after which a list breaks, 0 for none; guarded by mu
	late     time.Duration     // after which a Delete that was given up is done all the same; guarded by mu
	deleting func(chunk.ID)    // guarded by mu
}

func newStore() *Store {
	return &Store{inner: new(mem.Store), corrupt: make(map[chunk.ID]bool)}
}

// Down says whether the cluster thinks that the store is gone. It also fails
// all calls, as it would.
func (s *Store) Down(down bool) { s.down.Store(down) }

// Fail makes all calls return err; nil ends it.
func (s *Store) Fail(err error) { s.set(func() { s.fail = err }) }

// Slow makes all calls take d longer.
func (s *Store) Slow(d time.Duration) { s.set(func() { s.slow = d }) }

// Limit bounds the store to n bytes more than it holds; 0 ends it.
func (s *Store) Limit(n int64) {
	s.set(func() {
		s.capacity = 0
		if n != 0 {
			u, _ := s.inner.Usage(context.Background())
			s.capacity = u.Used + n
		}
	})
}

// Hang makes calls wait until Resume. A deaf store does not hear that the
// context of a call has ended.
func (s *Store) Hang(deaf bool) {
	s.set(func() {
		if s.hang == nil {
			s.hang = make(chan struct{})
		}
		s.deaf = deaf
	})
}

// Resume ends Hang.
func (s *Store) Resume() {
	s.set(func() {
		if s.hang != nil {
			close(s.hang)
			s.hang = nil
		}
	})
}

// BreakLists makes each list fail after n entries, as when its connection
// breaks; 0 ends it.
func (s *Store) BreakLists(n int) { s.set(func() { s.breaks = n }) }

// LateDeletes makes Delete time out, and be done d later all the same; 0 ends it.
func (s *Store) LateDeletes(d time.Duration) { s.set(func() { s.late = d }) }

// Deleting has f called with each shard that is about to be deleted and is there.
func (s *Store) Deleting(f func(chunk.ID)) { s.set(func() { s.deleting = f }) }

// Lose empties the store.
func (s *Store) Lose() {
	s.set(func() { s.inner, s.corrupt = new(mem.Store), make(map[chunk.ID]bool) })
}

// Corrupt spoils a shard.
func (s *Store) Corrupt(id chunk.ID) { s.set(func() { s.corrupt[id] = true }) }

// Shards lists what the store holds and is not corrupt, whatever its faults.
func (s *Store) Shards() []chunk.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []chunk.Info
	for info := range s.inner.List(context.Background(), chunk.ID{}) {
		if !s.corrupt[info.ID] {
			all = append(all, info)
		}
	}
	return all
}

func (s *Store) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// enter waits and fails as the faults say.
func (s *Store) enter(ctx context.Context) (*mem.Store, error) {
	s.mu.Lock()
	hang, deaf, slow := s.hang, s.deaf, s.slow
	s.mu.Unlock()
	if hang != nil {
		ended := ctx.Done()
		if deaf {
			ended = nil
		}
		select {
		case <-hang:
		case <-ended:
			return nil, ctx.Err()
		}
	}
	if slow > 0 {
		timer := time.NewTimer(slow)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.down.Load() {
		return nil, chunk.ErrLost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner, s.fail
}

func (s *Store) spoiled(id chunk.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.corrupt[id]
}

// Put is of chunk.Store.
func (s *Store) Put(ctx context.Context, id chunk.ID, data []byte) error {
	s.Puts.Add(1)
	m, err := s.enter(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := m.Usage(ctx)
	if err != nil {
		return err
	}
	if s.capacity != 0 && u.Used+int64(len(data)) > s.capacity {
		return chunk.ErrFull
	}
	if s.corrupt[id] {
		delete(s.corrupt, id)
		if err := m.Delete(ctx, id); err != nil {
			return err
		}
	}
	return m.Put(ctx, id, data)
}

// ReadAt is of chunk.Store.
func (s *Store) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	s.Gets.Add(1)
	m, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	if s.spoiled(id) {
		return 0, chunk.ErrCorrupt
	}
	return m.ReadAt(ctx, id, p, off)
}

// Stat is of chunk.Store.
func (s *Store) Stat(ctx context.Context, id chunk.ID) (chunk.Info, error) {
	m, err := s.enter(ctx)
	if err != nil {
		return chunk.Info{}, err
	}
	return m.Stat(ctx, id)
}

// Verify is of chunk.Scrubber.
func (s *Store) Verify(ctx context.Context, id chunk.ID) error {
	m, err := s.enter(ctx)
	if err != nil {
		return err
	}
	if s.spoiled(id) {
		return chunk.ErrCorrupt
	}
	return m.Verify(ctx, id)
}

// Delete is of chunk.Store.
func (s *Store) Delete(ctx context.Context, ids ...chunk.ID) error {
	m, err := s.enter(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	late := s.late
	s.mu.Unlock()
	if late > 0 {
		ids := slices.Clone(ids)
		time.AfterFunc(late, func() { _ = s.remove(context.Background(), m, ids) })
		return context.DeadlineExceeded
	}
	return s.remove(ctx, m, ids)
}

func (s *Store) remove(ctx context.Context, m *mem.Store, ids []chunk.ID) error {
	for _, id := range ids {
		s.mu.Lock()
		deleting := s.deleting
		s.mu.Unlock()
		if _, err := m.Stat(ctx, id); err == nil && deleting != nil {
			deleting(id)
		}
		s.set(func() { delete(s.corrupt, id) })
	}
	return m.Delete(ctx, ids...)
}

// List is of chunk.Store. As with a real one, corrupt shards are listed.
func (s *Store) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		m, err := s.enter(ctx)
		if err != nil {
			yield(chunk.Info{}, err)
			return
		}
		s.mu.Lock()
		left := s.breaks
		s.mu.Unlock()
		for info, err := range m.List(ctx, from) {
			if !yield(info, err) {
				return
			}
			if left--; left == 0 {
				yield(chunk.Info{}, chunk.ErrLost)
				return
			}
		}
	}
}

// Usage is of chunk.Store.
func (s *Store) Usage(ctx context.Context) (chunk.Usage, error) {
	m, err := s.enter(ctx)
	if err != nil {
		return chunk.Usage{}, err
	}
	u, err := m.Usage(ctx)
	if err != nil {
		return u, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capacity != 0 {
		u.Capacity, u.Free = s.capacity, max(s.capacity-u.Used, 0)
	}
	return u, nil
}
