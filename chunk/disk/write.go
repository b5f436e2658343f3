package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"dos/chunk"
	"dos/internal/disk"
)

// An op is a record, or a run of records, on its way to the disk.
type op struct {
	seg     *segment
	at      place
	blocks  uint32
	records uint32 // it consists of; each has a write number
	write   uint64 // of its first record
	seq     uint64
	synced  uint64
	retired bool          // guarded by Store.mu
	err     error         // final when done is closed
	done    chan struct{} // closed when it is on the disk or failed
	// finish changes the index, or gives up if ok is false; called once, under Store.mu.
	finish func(ok bool)
}

var headers = sync.Pool{New: func() any { return new([maxHeader]byte) }}

func (s *Store) Put(ctx context.Context, id chunk.ID, data []byte) error {
	if len(data) == 0 || len(data) > chunk.MaxShard {
		return fmt.Errorf("disk: shard %v of %d bytes, want 1 to %d", id, len(data), chunk.MaxShard)
	}
	release, err := s.claim(ctx, id, data)
	if err != nil || release == nil {
		return err
	}
	o, err := s.putRecord(ctx, id, data, release)
	if err != nil {
		return err
	}
	return wait(ctx, o)
}

// claim makes the caller the only one that changes a shard; release ends that.
// It returns neither release nor error when the same bytes are there already.
func (s *Store) claim(ctx context.Context, id chunk.ID, data []byte) (release func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if err := s.usable(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		over := s.busy[id]
		e, have := s.index.Get(key(id))
		if over == nil && (!have || e.bad) {
			release := s.hold(id)
			s.mu.Unlock()
			return release, nil
		}
		s.mu.Unlock()
		if over != nil {
			if err := waitFor(ctx, over); err != nil {
				return nil, err
			}
			continue
		}
		same, err := s.same(ctx, id, data)
		switch {
		case errors.Is(err, chunk.ErrNotExist): // deleted meanwhile
		case errors.Is(err, chunk.ErrCorrupt):
			s.markBad(e)
		case err != nil:
			return nil, err
		case !same:
			return nil, fmt.Errorf("shard %v: %w", id, chunk.ErrExist)
		default:
			return nil, nil
		}
	}
}

// hold marks ids as busy; release is called under mu. mu is held.
func (s *Store) hold(ids ...chunk.ID) (release func()) {
	over := make(chan struct{})
	for _, id := range ids {
		s.busy[id] = over
	}
	return func() {
		for _, id := range ids {
			delete(s.busy, id)
		}
		close(over)
	}
}

func (s *Store) unhold(release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	release()
}

func waitFor(ctx context.Context, over <-chan struct{}) error {
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait waits until an op is on the disk. If ctx ends first, the op goes on.
func wait(ctx context.Context, o *op) error {
	if err := waitFor(ctx, o.done); err != nil {
		return err
	}
	return o.err
}

// putRecord writes a shard whose id is held.
func (s *Store) putRecord(ctx context.Context, id chunk.ID, data []byte, release func()) (*op, error) {
	shape := shapeOf(len(data))
	if err := s.room.take(int64(shape.blocks()) * block); err != nil {
		s.unhold(release)
		if !errors.Is(err, chunk.ErrFull) {
			err = s.fail(err)
		}
		return nil, err
	}
	o := &op{blocks: shape.blocks(), records: 1, done: make(chan struct{})}
	n := uint32(len(data)) // finish must not keep data alive
	o.finish = func(ok bool) {
		release()
		if ok {
			s.set(entry{stripe: id.Stripe, index: id.Index, seq: o.seq, at: o.at, size: n})
		}
	}
	return o, s.shard(ctx, o, id, 0, data)
}

// shard appends the record of a shard: a new one if seq is zero, else a copy.
func (s *Store) shard(ctx context.Context, o *op, id chunk.ID, seq uint64, data []byte) error {
	shape := shapeOf(len(data))
	buf := headers.Get().(*[maxHeader]byte)
	defer headers.Put(buf)
	b := buf[:shape.header*block]
	clear(b)
	shape.fill(b, data)
	if err := s.reserve(ctx, o); err != nil {
		return err
	}
	if seq != 0 {
		o.seq = seq
	}
	h := header{kind: kindShard, id: id, seq: o.seq, size: uint32(len(data)), at: o.at, write: o.write, synced: o.synced}
	h.encode(b, s.id.Incarnation)
	parts := [][]byte{b, data[:shape.full*block]}
	if shape.tail > 0 && !shape.inside {
		parts = append(parts, data[shape.full*block:], zeroBlock[shape.tail:])
	}
	s.put(o, parts)
	return nil
}

// set makes e the live record of its shard. mu is held.
func (s *Store) set(e entry) {
	if old, had := s.index.ReplaceOrInsert(e); had {
		s.addLive(old.at, -old.bytes())
		s.bury(old.grave())
	}
	s.addLive(e.at, e.bytes())
}

// bury remembers to punch a dead record. mu is held.
func (s *Store) bury(g grave) {
	s.reap = append(s.reap, g)
	s.unsafe[g.id]++
	wake(s.sweeps)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake already
	}
}

// reserve gives an op its place, making a new segment if need be. An op of many
// records gets as many write numbers. If it fails the op is finished.
func (s *Store) reserve(ctx context.Context, o *op) error {
	for {
		s.mu.Lock()
		err := s.usable()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			o.finish(false)
			s.mu.Unlock()
			return err
		}
		if seg := s.active; seg != nil && (seg.end == 1 || int64(seg.end+o.blocks)*block <= s.c.Segment) {
			o.seg = seg
			o.at = place{seg.number, seg.end}
			seg.end += o.blocks
			o.synced = s.synced()
			o.write = s.nextWrite
			s.nextWrite += uint64(o.records)
			o.seq = s.nextSeq
			s.nextSeq++
			s.appended += int64(o.blocks) * block
			s.pending = append(s.pending, o)
			s.writes.Add(1)
			s.mu.Unlock()
			return nil
		}
		if rolling := s.rolling; rolling != nil {
			s.mu.Unlock()
			if err := waitFor(ctx, rolling); err != nil {
				s.unhold(func() { o.finish(false) })
				return err
			}
			continue
		}
		s.rolling = make(chan struct{})
		number := s.nextSeg
		s.nextSeg++
		s.writes.Add(1) // Close waits for the new segment too
		s.mu.Unlock()
		err = s.roll(number)
		s.writes.Done()
		if err != nil {
			s.unhold(func() { o.finish(false) })
			return err
		}
	}
}

// synced is the largest number such that all writes up to it are on the disk or
// failed for good. mu is held.
func (s *Store) synced() uint64 {
	for len(s.pending) > 0 && s.pending[0].retired {
		s.pending[0] = nil
		s.pending = s.pending[1:]
	}
	if len(s.pending) == 0 {
		return s.nextWrite - 1
	}
	return s.pending[0].write - 1
}

// roll makes a new active segment. s.rolling is the caller's.
func (s *Store) roll(number uint32) error {
	seg, err := s.newSegment(number)
	s.mu.Lock()
	if err == nil {
		s.segments[number] = seg
		s.active = seg
	}
	close(s.rolling)
	s.rolling = nil
	s.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case disk.IsFull(err):
		return fmt.Errorf("%w: %w", chunk.ErrFull, err)
	}
	return s.fail(err)
}

// newSegment makes the file of a segment. It is on the disk when it returns.
func (s *Store) newSegment(number uint32) (*segment, error) {
	path := filepath.Join(s.dir, segmentName(number))
	f, err := s.c.FS.Create(path)
	if err != nil {
		return nil, err
	}
	head := s.id.encode(segmentMagic, number)
	err = f.WriteVec([][]byte{head, zeroBlock[len(head):]}, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.c.FS.SyncDir(s.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), s.c.FS.Remove(path))
	}
	return &segment{number: number, file: f, end: 1, stuck: -1}, nil
}

// put writes an op that has its place and queues it for the next sync. Its data
// is not used after put returns.
func (s *Store) put(o *op, parts [][]byte) {
	if err := o.seg.file.WriteVec(parts, o.at.offset()); err != nil {
		if disk.IsFull(err) {
			o.err = fmt.Errorf("%w: %w", chunk.ErrFull, err)
			if err := s.erase(o.seg, o.at.block, o.blocks); err != nil {
				o.err = s.fail(err)
			}
		} else {
			o.err = s.fail(err)
		}
	}
	s.mu.Lock()
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	wake(s.commits)
}

// erase makes sure that no header is found in a range of blocks again, once the
// segment is synced.
func (s *Store) erase(seg *segment, first, n uint32) error {
	err := seg.file.Punch(int64(first)*block, int64(n)*block)
	if disk.IsFull(err) && s.room.giveReserve() { // a hole may need a block of the file system's own
		err = seg.file.Punch(int64(first)*block, int64(n)*block)
	}
	if err == nil {
		return nil
	}
	// Not every file system can punch. A header that was written has its block,
	// so this needs no room.
	for b := first; b < first+n; b++ {
		var head [len(headerMagic)]byte
		if _, err := seg.file.ReadAt(head[:], int64(b)*block); err != nil || string(head[:]) != headerMagic {
			continue
		}
		if _, err := seg.file.WriteAt(zeroBlock, int64(b)*block); err != nil {
			return err
		}
	}
	return nil
}

// commitLoop syncs what was written: one sync acknowledges all that waits for it.
func (s *Store) commitLoop() {
	for {
		select {
		case <-s.commits:
		case <-s.stop: // Close has waited for all ops
			return
		}
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		err := s.lost
		s.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		if err == nil {
			err = s.commit(batch)
		}
		s.retire(batch, err)
	}
}

func (s *Store) commit(batch []*op) error {
	var segs []*segment
	seen := make(map[*segment]bool, 2)
	for _, o := range batch {
		if !seen[o.seg] {
			seen[o.seg] = true
			segs = append(segs, o.seg)
		}
	}
	for _, seg := range segs {
		if err := seg.file.Sync(); err != nil {
			lost := s.fail(err) // what a later sync says would prove nothing
			if disk.IsFull(err) {
				return fmt.Errorf("%w: %w", chunk.ErrFull, err)
			}
			return lost
		}
	}
	if err := s.present(segs); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *Store) retire(batch []*op, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range batch {
		if o.err == nil {
			o.err = err
		}
		o.finish(o.err == nil)
		o.retired = true
		close(o.done)
		s.writes.Done()
	}
}
