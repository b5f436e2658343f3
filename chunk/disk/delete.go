package disk

import (
	"context"
	"errors"
	"slices"

	"dos/chunk"
)

const (
	// maxBury bounds the tombstones that one op writes.
	maxBury = 64 * perTombstone
	// maxReap bounds the graves that wait to be punched: Delete waits beyond.
	maxReap = 1 << 16
	// maxPunched bounds the holes that are not synced, so that few tombstones
	// wait for them.
	maxPunched = 4096
)

// Delete appends tombstones; the records are punched out in the background. It
// works on a full disk: the reserve is there for it.
func (s *Store) Delete(ctx context.Context, ids ...chunk.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	err := s.usable()
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	for part := range slices.Chunk(ids, maxBury) {
		err := s.delete(ctx, part)
		if errors.Is(err, chunk.ErrFull) && s.room.giveReserve() {
			s.c.Log.Warn("chunk store: full, gave up the reserve to delete", "dir", s.dir)
			err = s.delete(ctx, part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) delete(ctx context.Context, ids []chunk.ID) error {
	live, release, err := s.claimLive(ctx, ids)
	if err != nil || len(live) == 0 {
		return err
	}
	o := &op{done: make(chan struct{})}
	o.finish = func(ok bool) {
		release()
		if !ok {
			return
		}
		for _, id := range live {
			if e, had := s.index.Delete(key(id)); had {
				s.addLive(e.at, -e.bytes())
				s.bury(e.grave())
			}
		}
	}
	if err := s.tombstones(ctx, o, len(live), func(i int) tombstone { return tombstone{live[i], o.seq} }); err != nil {
		return err
	}
	return wait(ctx, o)
}

// claimLive holds those of ids that are there, once nobody else holds any.
func (s *Store) claimLive(ctx context.Context, ids []chunk.ID) (live []chunk.ID, release func(), err error) {
	for {
		s.mu.Lock()
		over := s.reaped
		if err := s.usable(); err != nil {
			s.mu.Unlock()
			return nil, nil, err
		}
		if len(s.reap) <= maxReap {
			over = nil
		}
		live = live[:0]
		for _, id := range ids {
			if b := s.busy[id]; b != nil {
				over = b
				break
			}
			if s.index.Has(key(id)) {
				live = append(live, id)
			}
		}
		if over == nil {
			slices.SortFunc(live, chunk.ID.Compare)
			live = slices.Compact(live)
			if len(live) > 0 {
				release = s.hold(live...)
			}
			s.mu.Unlock()
			return live, release, nil
		}
		s.mu.Unlock()
		select {
		case <-over:
		case <-s.lostc:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// tombstones appends n of them, which at tells once the op has its seq.
func (s *Store) tombstones(ctx context.Context, o *op, n int, at func(i int) tombstone) error {
	o.records = uint32((n + perTombstone - 1) / perTombstone)
	o.blocks = o.records
	if err := s.reserve(ctx, o); err != nil {
		return err
	}
	b := make([]byte, int(o.blocks)*block)
	for i := range o.records {
		h := header{
			kind: kindBuried, write: o.write + uint64(i), synced: o.synced,
			at: place{o.at.segment, o.at.block + i},
		}
		for j := int(i) * perTombstone; j < min(n, int(i+1)*perTombstone); j++ {
			h.buried = append(h.buried, at(j))
		}
		h.encode(b[int(i)*block:], s.id.Incarnation)
	}
	s.put(o, [][]byte{b})
	return nil
}

// punchAll gives back the space of the dead. Only the sweeper calls it, and
// Close when the sweeper has ended.
func (s *Store) punchAll() {
	s.mu.Lock()
	s.reaping, s.reap = s.reap, nil
	close(s.reaped)
	s.reaped = make(chan struct{})
	dead := s.reaping
	files := make(map[uint32]*segment, 8)
	for _, g := range dead {
		files[g.at.segment] = s.segments[g.at.segment]
	}
	s.mu.Unlock()
	for _, g := range dead {
		seg := files[g.at.segment]
		if seg == nil {
			continue // removed, and the dead with it
		}
		if err := s.erase(seg, g.at.block, g.blocks); err != nil {
			s.fail(err)
			return
		}
		s.sums.forget(g.at)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.punched = append(s.punched, dead...)
	s.reaping = nil
}

// syncPunched makes the holes safe; after that nothing needs the tombstones of
// what was there. Only the sweeper calls it, and Close.
func (s *Store) syncPunched() error {
	s.mu.Lock()
	holes := s.punched[:len(s.punched):len(s.punched)]
	files := make(map[*segment]bool)
	for _, g := range holes {
		if seg := s.segments[g.at.segment]; seg != nil {
			files[seg] = true
		}
	}
	s.mu.Unlock()
	for seg := range files {
		if err := seg.file.Sync(); err != nil {
			return s.fail(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.punched = append([]grave(nil), s.punched[len(holes):]...)
	for _, g := range holes {
		if s.unsafe[g.id]--; s.unsafe[g.id] == 0 {
			delete(s.unsafe, g.id)
		}
	}
	return nil
}
