package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"dos/chunk"
	"dos/internal/disk"
)

const (
	sweepEvery = time.Second
	// checkpointEvery is how many bytes are written at least between two
	// checkpoints: what a start has to scan.
	checkpointEvery = 256 << 20
	// checkpointShare bounds what checkpoints add to what is written: 1/16.
	checkpointShare = 16
	// sparse: a segment is rewritten when less than 1/sparse of one is alive.
	// The dead take no room, but the file is open and the live lie scattered.
	sparse = 4
	// pauseMin is the shortest pause of compaction worth making.
	pauseMin = 20 * time.Millisecond
)

// sweepLoop does in turn what tidies up: punching the dead, checkpoints,
// compaction.
func (s *Store) sweepLoop() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		due := false
		select {
		case <-s.stop:
			return
		case <-s.lostc:
			return
		case <-s.sweeps:
		case <-tick.C:
			due = true
		}
		s.punchDead()
		if !due {
			continue
		}
		s.room.keepReserve(s.c.Log)
		// On a full disk it waits; whoever writes is told.
		if err := s.tidy(); err != nil && s.Err() == nil && !errors.Is(err, chunk.ErrFull) && !disk.IsFull(err) {
			s.c.Log.Warn("chunk store: tidying up", "dir", s.dir, "err", err)
		}
	}
}

func (s *Store) punchDead() {
	s.punchAll()
	s.mu.RLock()
	many := len(s.punched) > maxPunched
	s.mu.RUnlock()
	if many {
		_ = s.syncPunched() // a failure has made the store lost
	}
}

// tidy writes a checkpoint if one is due and rewrites sparse segments.
func (s *Store) tidy() error {
	s.mu.RLock()
	due := s.appended > max(checkpointEvery, checkpointShare*s.checkpointSize)
	s.mu.RUnlock()
	if due {
		if err := s.save(); err != nil {
			return err
		}
	}
	for {
		seg := s.victim()
		if seg == nil {
			return nil
		}
		if err := s.compact(seg); err != nil {
			return fmt.Errorf("compacting %s: %w", segmentName(seg.number), err)
		}
	}
}

// save is checkpoint, for which a full disk is no disaster.
func (s *Store) save() error {
	err := s.checkpoint()
	if err == nil || disk.IsFull(err) {
		return err
	}
	return s.fail(err)
}

// victim chooses the segment with the least alive, nil if none is sparse.
func (s *Store) victim() *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	writing := make(map[*segment]bool)
	for _, o := range s.pending {
		if o != nil && !o.retired {
			writing[o.seg] = true
		}
	}
	var best *segment
	for _, seg := range s.segments {
		if seg == s.active || writing[seg] || seg.live == seg.stuck || seg.live*sparse >= s.c.Segment {
			continue
		}
		if best == nil || seg.live < best.live || seg.live == best.live && seg.number < best.number {
			best = seg
		}
	}
	return best
}

// compact moves what is alive in a segment to the end of the log and removes
// the file.
//
// Tombstones in it are dropped when all they killed is gone for good: its holes
// are synced, and the checkpoint, which is brought up to date first, does not
// list it. The others move too.
func (s *Store) compact(seg *segment) error {
	if err := s.syncPunched(); err != nil {
		return err
	}
	s.mu.RLock()
	known := seg.known >= seg.end
	s.mu.RUnlock()
	if !known {
		if err := s.save(); err != nil {
			return err
		}
	}
	unread, err := s.evacuate(seg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if seg.live > 0 || unread > 0 { // damaged shards stay until they are replaced
		seg.stuck = seg.live
		s.mu.Unlock()
		return nil
	}
	delete(s.segments, seg.number) // first, or its loss would be noticed
	s.mu.Unlock()
	err = s.c.FS.Remove(filepath.Join(s.dir, segmentName(seg.number)))
	if disk.IsFull(err) { // some file systems need room to remove: later
		s.mu.Lock()
		s.segments[seg.number] = seg
		s.mu.Unlock()
		return err
	}
	if err == nil {
		// Until the name is gone for good, what was dropped here could come back.
		err = s.c.FS.SyncDir(s.dir)
	}
	if err := errors.Join(err, seg.file.Close()); err != nil {
		return s.fail(err)
	}
	return nil
}

// evacuate copies what is needed of a segment, and says how many blocks of it
// could not be read. When it returns, the copies are on the disk.
func (s *Store) evacuate(seg *segment) (unread int64, err error) {
	sc, err := scan(seg.file, s.id.Incarnation, seg.number, 1)
	if err != nil {
		return 0, err
	}
	var ops []*op
	defer func() {
		for _, o := range ops { // also after an error: nothing is left under way
			<-o.done
			err = errors.Join(err, o.err)
		}
	}()
	var keep []tombstone
	var buf []byte
	debt := time.Duration(0)
	for {
		h, err := sc.record()
		if err != nil {
			break // io.EOF
		}
		keep = append(keep, s.needed(h.buried)...)
		e, ok := s.alive(h)
		if !ok {
			continue
		}
		if buf == nil {
			buf = make([]byte, chunk.MaxShard)
		}
		o, err := s.copyShard(seg, e, buf[:e.size])
		if err != nil {
			return 0, err
		}
		if o != nil {
			ops = append(ops, o)
		}
		debt += time.Duration(e.bytes()) * time.Second / time.Duration(s.c.Compact)
		if debt > pauseMin {
			if !s.pause(debt) {
				return 0, errClosed
			}
			debt = 0
		}
	}
	if len(keep) > 0 {
		o := &op{done: make(chan struct{}), finish: func(bool) {}}
		if err := s.tombstones(context.Background(), o, len(keep), func(i int) tombstone { return keep[i] }); err != nil {
			return 0, err
		}
		ops = append(ops, o)
	}
	return sc.unread, nil
}

// alive returns the entry of the shard of a record if the record is its live one.
func (s *Store) alive(h header) (entry, bool) {
	if h.kind != kindShard {
		return entry{}, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.index.Get(key(h.id))
	return e, ok && e.at == h.at && !e.bad
}

// needed returns those tombstones whose shard may still be on the disk.
func (s *Store) needed(buried []tombstone) []tombstone {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var keep []tombstone
	for _, t := range buried {
		if s.unsafe[t.id] > 0 {
			keep = append(keep, t)
		}
	}
	return keep
}

// copyShard appends a copy of a live shard. It returns neither op nor error
// when the shard cannot be read: then it stays where it is.
func (s *Store) copyShard(seg *segment, e entry, buf []byte) (*op, error) {
	switch err := s.read(e, seg.file, buf, 0); {
	case errors.Is(err, errBad):
		if !s.moved(e) {
			s.markBad(e)
		}
		return nil, nil
	case err != nil:
		return nil, nil
	}
	if err := s.room.take(e.bytes()); err != nil {
		return nil, err
	}
	o := &op{blocks: uint32(e.bytes() / block), records: 1, done: make(chan struct{})}
	o.finish = func(ok bool) {
		if !ok {
			return
		}
		if now, have := s.index.Get(e); have && now.at == e.at {
			now.at = o.at
			s.set(now)
		} else { // deleted or replaced meanwhile
			s.bury(grave{e.id(), o.at, o.blocks})
		}
	}
	return o, s.shard(context.Background(), o, e.id(), e.seq, buf)
}

// pause waits, punching what dies meanwhile, and reports false if the store ends.
func (s *Store) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			return false
		case <-s.lostc:
			return false
		case <-s.sweeps:
			s.punchDead()
		case <-timer.C:
			return true
		}
	}
}
