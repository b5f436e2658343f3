package disk

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dos/chunk"
)

// A recovery rebuilds the index from the checkpoint and the segments.
type recovery struct {
	s                        *Store
	synced                   uint64              // the largest number that a record or the checkpoint has
	suspect                  []found             // shards with a write above it
	buried                   map[chunk.ID]uint64 // the latest tombstones
	touched                  map[*segment]bool   // with records that the checkpoint does not know
	prune                    int                 // when to look at suspect again
	records, erased, damaged int64
}

type found struct {
	entry entry
	write uint64
}

func (s *Store) recover() error {
	began := time.Now()
	if err := s.openSegments(); err != nil {
		return err
	}
	r := &recovery{s: s, buried: make(map[chunk.ID]uint64), touched: make(map[*segment]bool), prune: 1024}
	cp, err := loadCheckpoint(s.c.FS, s.dir, s.id.Incarnation)
	switch {
	case err == nil:
		r.start(cp)
	case errors.Is(err, ErrNewer):
		return err
	case !errors.Is(err, fs.ErrNotExist):
		s.c.Log.Warn("chunk store: checkpoint of no use, scanning all segments", "dir", s.dir, "err", err)
	}
	for _, n := range slices.Sorted(maps.Keys(s.segments)) {
		if err := r.scan(s.segments[n]); err != nil {
			return err
		}
	}
	if err := r.settle(); err != nil {
		return err
	}
	if r.records+r.damaged > 0 {
		s.c.Log.Info("chunk store: scanned what was not closed cleanly", "dir", s.dir, "records", r.records,
			"torn", r.erased, "damaged_blocks", r.damaged, "shards", s.index.Len(), "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// openSegments opens what is there and removes what was left half-written.
func (s *Store) openSegments() error {
	names, err := s.c.FS.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, newSuffix) && ours(name) {
			if err := s.c.FS.Remove(filepath.Join(s.dir, name)); err != nil {
				s.c.Log.Warn("chunk store: cannot remove", "dir", s.dir, "file", name, "err", err)
			}
			continue
		}
		n, ok := segmentNumber(name)
		if !ok {
			continue
		}
		s.nextSeg = max(s.nextSeg, n+1)
		f, err := s.c.FS.Open(filepath.Join(s.dir, name))
		if err != nil {
			return err
		}
		b := make([]byte, identitySize)
		if _, err := f.ReadAt(b, 0); err == nil {
			if id, _, err := decodeIdentity(b, segmentMagic); err == nil && id != s.id {
				s.c.Log.Warn("chunk store: segment of another store left alone", "dir", s.dir, "file", name, "incarnation", id.Incarnation)
				if err := f.Close(); err != nil {
					return err
				}
				continue
			}
		}
		st, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		s.segments[n] = &segment{number: n, file: f, end: max(1, blocksOf(st.Size+block-1)), stuck: -1}
	}
	return nil
}

func (r *recovery) start(cp *checkpoint) {
	s := r.s
	s.nextSeq, s.nextWrite = max(1, cp.nextSeq), max(1, cp.nextWrite)
	s.nextSeg = max(s.nextSeg, cp.nextSeg)
	r.synced = cp.synced
	for n, known := range cp.known {
		if seg := s.segments[n]; seg != nil {
			seg.known = known
			seg.end = max(seg.end, known) // no place is handed out twice
		}
	}
	s.index = cp.shards
	var gone []entry
	s.index.Ascend(func(e entry) bool {
		if s.segments[e.at.segment] == nil {
			gone = append(gone, e)
		}
		return true
	})
	for _, e := range gone {
		s.index.Delete(e)
	}
	for _, g := range cp.graves {
		if s.segments[g.at.segment] != nil {
			s.bury(g)
		}
	}
	s.checkpointSize = int64(s.index.Len()) * checkpointShard
}

// scan finds what the checkpoint does not know of a segment.
func (r *recovery) scan(seg *segment) error {
	if seg.known == seg.end {
		return nil
	}
	r.touched[seg] = true
	sc, err := scan(seg.file, r.s.id.Incarnation, seg.number, seg.known)
	if err != nil {
		return err
	}
	for {
		h, err := sc.record()
		if err != nil {
			break // io.EOF
		}
		r.records++
		r.synced = max(r.synced, h.synced)
		r.s.nextWrite = max(r.s.nextWrite, h.write+1, h.synced+1)
		r.s.appended += int64(h.blocks()) * block
		for _, t := range h.buried {
			r.buried[t.id] = max(r.buried[t.id], t.seq)
			r.s.nextSeq = max(r.s.nextSeq, t.seq+1)
		}
		if h.kind != kindShard {
			continue
		}
		r.s.nextSeq = max(r.s.nextSeq, h.seq+1)
		r.suspect = append(r.suspect, found{
			entry{stripe: h.id.Stripe, index: h.id.Index, seq: h.seq, at: h.at, size: h.size}, h.write})
		if len(r.suspect) > r.prune {
			r.admitSynced()
			r.prune = 1024 + 2*len(r.suspect)
		}
	}
	r.damaged += sc.damaged
	return nil
}

// admitSynced takes those for good that were on the disk when later ones were written.
func (r *recovery) admitSynced() {
	rest := r.suspect[:0]
	for _, f := range r.suspect {
		if f.write <= r.synced {
			r.admit(f.entry)
		} else {
			rest = append(rest, f)
		}
	}
	r.suspect = rest
}

// admit makes e the live record of its shard unless there is a later one.
func (r *recovery) admit(e entry) {
	old, had := r.s.index.Get(e)
	switch {
	case had && old.at == e.at:
	case had && (old.seq > e.seq || old.seq == e.seq && e.at.before(old.at)):
		r.s.bury(e.grave())
	default:
		if had { // of the same seq: e is a copy that compaction made later
			r.s.bury(old.grave())
		}
		r.s.index.ReplaceOrInsert(e)
	}
}

func (r *recovery) settle() error {
	s := r.s
	r.admitSynced()
	for _, f := range r.suspect {
		if r.whole(f.entry) {
			r.admit(f.entry)
			continue
		}
		r.erased++
		e := f.entry
		if err := s.erase(s.segments[e.at.segment], e.at.block, shapeOf(int(e.size)).blocks()); err != nil {
			return err
		}
	}
	for id, seq := range r.buried {
		if e, ok := s.index.Get(key(id)); ok && e.seq < seq {
			s.index.Delete(e)
			s.bury(e.grave())
		}
	}
	// What the kernel still had in memory must be safe before it is served.
	for seg := range r.touched {
		if err := seg.file.Sync(); err != nil {
			return err
		}
	}
	if err := s.c.FS.SyncDir(s.dir); err != nil {
		return err
	}
	s.index.Ascend(func(e entry) bool {
		s.addLive(e.at, e.bytes())
		return true
	})
	if last := s.segments[s.nextSeg-1]; last != nil && !r.touched[last] && int64(last.end)*block < s.c.Segment {
		s.active = last
	}
	return nil
}

// whole reports whether all of a record reached the disk.
func (r *recovery) whole(e entry) bool {
	f := r.s.segments[e.at.segment].file
	err := r.s.read(e, f, make([]byte, e.size), 0)
	return !errors.Is(err, errBad) // what the disk cannot read now may have been acknowledged
}
