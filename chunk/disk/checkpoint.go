package disk

import (
	"bufio"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"dos/chunk"
	"dos/internal/disk"
)

// A checkpoint is the index as it was at some moment, and how far into each
// segment it reaches:
//
//	offset  size  field
//	     0     8  "DOSCHECK"
//	     8     4  version, 1
//	    12     4  CRC-32C of bytes 0 to 11
//	    16    16  incarnation
//	    32     8  the next seq
//	    40     8  the next write number
//	    48     8  synced: the largest such that all writes up to it were on the disk
//	    56     4  the next segment
//	    60     4  segments, s
//	    64     8  shards, n
//	    72     8  graves, g
//	    80   8·s  segments: number 4, blocks that it reaches 4
//	         32·n shards, ascending: stripe 8, seq 8, segment 4, block 4, size 4, index 1, bad 1, zero 2
//	         24·g graves: stripe 8, segment 4, block 4, blocks 4, index 1, zero 3
//	           4  CRC-32C of all bytes before
//
// It is written beside the old one, synced, and renamed.
type checkpoint struct {
	inc       Incarnation
	nextSeq   uint64
	nextWrite uint64
	synced    uint64
	nextSeg   uint32
	known     map[uint32]uint32 // segment → blocks
	order     []uint32          // the segments as they stand in the file
	shards    *index
	graves    []grave
}

const (
	checkpointName  = "checkpoint"
	checkpointMagic = "DOSCHECK"
	checkpointHead  = 80
	checkpointSeg   = 8
	checkpointShard = 32
	checkpointGrave = 24
)

func (c *checkpoint) write(w io.Writer) error {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(w, 256<<10)
	both := io.MultiWriter(out, sum)
	b := prologue(checkpointMagic, checkpointHead)
	copy(b[16:], c.inc[:])
	le.PutUint64(b[32:], c.nextSeq)
	le.PutUint64(b[40:], c.nextWrite)
	le.PutUint64(b[48:], c.synced)
	le.PutUint32(b[56:], c.nextSeg)
	le.PutUint32(b[60:], uint32(len(c.order)))
	le.PutUint64(b[64:], uint64(c.shards.Len()))
	le.PutUint64(b[72:], uint64(len(c.graves)))
	_, err := both.Write(b)
	put := func(row []byte) bool {
		if err == nil {
			_, err = both.Write(row)
		}
		return err == nil
	}
	var row [checkpointShard]byte
	for _, n := range c.order {
		le.PutUint32(row[0:], n)
		le.PutUint32(row[4:], c.known[n])
		put(row[:checkpointSeg])
	}
	c.shards.Ascend(func(e entry) bool {
		row = [checkpointShard]byte{}
		le.PutUint64(row[0:], uint64(e.stripe))
		le.PutUint64(row[8:], e.seq)
		le.PutUint32(row[16:], e.at.segment)
		le.PutUint32(row[20:], e.at.block)
		le.PutUint32(row[24:], e.size)
		row[28] = e.index
		if e.bad {
			row[29] = 1
		}
		return put(row[:])
	})
	for _, g := range c.graves {
		row = [checkpointShard]byte{}
		le.PutUint64(row[0:], uint64(g.id.Stripe))
		le.PutUint32(row[8:], g.at.segment)
		le.PutUint32(row[12:], g.at.block)
		le.PutUint32(row[16:], g.blocks)
		row[20] = g.id.Index
		put(row[:checkpointGrave])
	}
	if err != nil {
		return err
	}
	if _, err := out.Write(le.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	return out.Flush()
}

// readCheckpoint reads a checkpoint of so many bytes.
func readCheckpoint(r io.Reader, size int64) (*checkpoint, error) {
	in := &summed{r: bufio.NewReaderSize(r, 256<<10), sum: crc32.New(castagnoli)}
	var head [checkpointHead]byte
	b := head[:]
	if err := in.read(b); err != nil {
		return nil, err
	}
	if err := checkPrologue(b, checkpointMagic); err != nil {
		return nil, err
	}
	c := &checkpoint{
		inc: Incarnation(b[16:32]), nextSeq: le.Uint64(b[32:]), nextWrite: le.Uint64(b[40:]),
		synced: le.Uint64(b[48:]), nextSeg: le.Uint32(b[56:]),
		known: make(map[uint32]uint32), shards: newIndex(),
	}
	segs, shards, graves := uint64(le.Uint32(b[60:])), le.Uint64(b[64:]), le.Uint64(b[72:])
	if limit := uint64(size); shards > limit || graves > limit ||
		checkpointHead+segs*checkpointSeg+shards*checkpointShard+graves*checkpointGrave+4 != limit {
		return nil, fmt.Errorf("%d bytes for %d segments, %d shards and %d graves: %w", size, segs, shards, graves, errHeader)
	}
	var row [checkpointShard]byte
	for range segs {
		if err := in.read(row[:checkpointSeg]); err != nil {
			return nil, err
		}
		n := le.Uint32(row[0:])
		c.known[n] = le.Uint32(row[4:])
		c.order = append(c.order, n)
	}
	var last entry
	for i := range shards {
		if err := in.read(row[:]); err != nil {
			return nil, err
		}
		e := entry{
			stripe: chunk.StripeID(le.Uint64(row[0:])), seq: le.Uint64(row[8:]),
			at: place{le.Uint32(row[16:]), le.Uint32(row[20:])}, size: le.Uint32(row[24:]),
			index: row[28], bad: row[29] == 1,
		}
		if row[29] > 1 || e.size == 0 || e.size > chunk.MaxShard || i > 0 && last.id().Compare(e.id()) >= 0 {
			return nil, errHeader
		}
		last = e
		c.shards.ReplaceOrInsert(e)
	}
	for range graves {
		if err := in.read(row[:checkpointGrave]); err != nil {
			return nil, err
		}
		c.graves = append(c.graves, grave{
			id: chunk.ID{Stripe: chunk.StripeID(le.Uint64(row[0:])), Index: row[20]},
			at: place{le.Uint32(row[8:]), le.Uint32(row[12:])}, blocks: le.Uint32(row[16:]),
		})
	}
	want := in.sum.Sum32()
	if err := in.read(row[:4]); err != nil {
		return nil, err
	}
	if le.Uint32(row[:]) != want {
		return nil, errChecksum
	}
	return c, nil
}

type summed struct {
	r   io.Reader
	sum hash.Hash32
}

func (s *summed) read(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	s.sum.Write(b) // never fails
	return nil
}

// loadCheckpoint returns the checkpoint of a folder, an error if it is of no use.
func loadCheckpoint(fsys disk.FS, dir string, inc Incarnation) (*checkpoint, error) {
	f, err := fsys.Open(filepath.Join(dir, checkpointName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c, err := readCheckpoint(io.NewSectionReader(f, 0, st.Size), st.Size)
	if err != nil {
		return nil, err
	}
	if c.inc != inc {
		return nil, fmt.Errorf("of another incarnation: %w", errHeader)
	}
	return c, nil
}

// snapshot returns what a checkpoint of this moment says. mu is held.
func (s *Store) snapshot() *checkpoint {
	c := &checkpoint{
		inc: s.id.Incarnation, nextSeq: s.nextSeq, nextWrite: s.nextWrite, synced: s.synced(), nextSeg: s.nextSeg,
		known: make(map[uint32]uint32), shards: s.index.Clone(),
	}
	for n, seg := range s.segments {
		c.known[n] = seg.end
	}
	c.order = slices.Sorted(maps.Keys(c.known))
	for _, o := range s.pending { // not in the index yet: to be found by a scan
		if !o.retired {
			c.known[o.at.segment] = min(c.known[o.at.segment], o.at.block)
		}
	}
	c.graves = append(c.graves, s.reap...)
	c.graves = append(c.graves, s.reaping...)
	c.graves = append(c.graves, s.punched...)
	return c
}

// checkpoint writes the index down.
func (s *Store) checkpoint() error {
	s.mu.Lock()
	c := s.snapshot()
	s.appended = 0
	s.mu.Unlock()
	err := replaceBy(s.c.FS, s.dir, checkpointName, func(f disk.File) error {
		return c.write(io.NewOffsetWriter(f, 0))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, known := range c.known {
		if seg := s.segments[n]; seg != nil {
			seg.known = known
		}
	}
	s.checkpointSize = int64(c.shards.Len())*checkpointShard + int64(len(c.graves))*checkpointGrave
	return nil
}
