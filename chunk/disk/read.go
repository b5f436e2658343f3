package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"syscall"

	"dos/chunk"
	"dos/internal/disk"
)

// errBad says that a record is not as it was put; errUnread that the disk could
// not read it, now at least.
var (
	errBad    = errors.New("disk: record damaged")
	errUnread = errors.New("disk: record unreadable")
)

const verifyChunk = 64 * block // bytes that Verify reads at once

var buffers = sync.Pool{New: func() any { return new([verifyChunk]byte) }}

func (s *Store) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("disk: read of shard %v at offset %d", id, off)
	}
	n := 0
	err := s.with(ctx, id, func(e entry, f disk.File) error {
		if n = 0; off >= int64(e.size) {
			return io.EOF
		}
		want := p[:min(int64(len(p)), int64(e.size)-off)]
		if err := s.read(e, f, want, off); err != nil {
			return err
		}
		if n = len(want); n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// Place is chunk.Placer's.
func (s *Store) Place(ctx context.Context, id chunk.ID, n int, off int64) (x chunk.Extent, err error) {
	err = s.with(ctx, id, func(e entry, f disk.File) error {
		conn, ok := f.(syscall.Conn)
		sh := shapeOf(int(e.size))
		if !ok || off < 0 || off%block != 0 || n < 0 || n%block != 0 || off+int64(n) > int64(sh.full)*block {
			return fmt.Errorf("disk: %d bytes at %d of shard %v, in a file of their own: %w", n, off, id, errors.ErrUnsupported)
		}
		sums, err := s.table(e, f)
		if err != nil {
			return err
		}
		first := int(off / block)
		x = chunk.Extent{
			File: conn, Off: e.at.offset() + int64(sh.header)*block + off, Len: n,
			Sums: sums[first*sumSize : (first+n/block)*sumSize],
		}
		return nil
	})
	return x, err
}

// Verify reads the record from the disk itself, not from the kernel's memory.
func (s *Store) Verify(ctx context.Context, id chunk.ID) error {
	return s.with(ctx, id, func(e entry, f disk.File) error {
		begin, n := e.at.offset(), e.bytes()
		f.Uncache(begin, n)
		defer f.Uncache(begin, n)
		s.sums.forget(e.at)
		buf := buffers.Get().(*[verifyChunk]byte)
		defer buffers.Put(buf)
		for off := int64(0); off < int64(e.size); off += verifyChunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.read(e, f, buf[:min(verifyChunk, int64(e.size)-off)], off); err != nil {
				return err
			}
		}
		return nil
	})
}

// same reports whether the shard holds exactly data.
func (s *Store) same(ctx context.Context, id chunk.ID, data []byte) (bool, error) {
	same := true
	err := s.with(ctx, id, func(e entry, f disk.File) error {
		same = int(e.size) == len(data)
		buf := buffers.Get().(*[verifyChunk]byte)
		defer buffers.Put(buf)
		for off := int64(0); off < int64(e.size); off += verifyChunk { // all of it: it may be damaged
			part := buf[:min(verifyChunk, int64(e.size)-off)]
			if err := s.read(e, f, part, off); err != nil {
				return err
			}
			same = same && bytes.Equal(part, data[off:off+int64(len(part))])
		}
		return nil
	})
	return same, err
}

// with calls do for the record of a shard, again when the record was moved or
// removed meanwhile, and makes kinds of its errors.
func (s *Store) with(ctx context.Context, id chunk.ID, do func(entry, disk.File) error) error {
	for {
		e, f, err := s.find(ctx, id)
		if err != nil {
			return err
		}
		err = do(e, f)
		if !errors.Is(err, errBad) && !errors.Is(err, errUnread) {
			return err
		}
		if s.moved(e) {
			continue
		}
		if errors.Is(err, errBad) {
			s.markBad(e)
		}
		return fmt.Errorf("shard %v in %s: %w: %w", id, segmentName(e.at.segment), chunk.ErrCorrupt, err)
	}
}

// moved reports whether e is no longer the place of its shard, or the store of
// no use any more: then looking again says so.
func (s *Store) moved(e entry) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now, ok := s.index.Get(e)
	return !ok || now.at != e.at || s.usable() != nil
}

// markBad remembers that a record is damaged, if it still is where it was.
func (s *Store) markBad(e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.index.Get(e); ok && now.at == e.at && !now.bad {
		now.bad = true
		s.index.ReplaceOrInsert(now)
		s.c.Log.Warn("chunk store: damaged shard", "dir", s.dir, "shard", e.id(), "segment", segmentName(e.at.segment), "block", e.at.block)
	}
}

// read fills p with the bytes from off on, all of which the shard has.
func (s *Store) read(e entry, f disk.File, p []byte, off int64) error {
	sums, err := s.table(e, f)
	if err != nil {
		return err
	}
	sh := shapeOf(int(e.size))
	for len(p) > 0 {
		i := int(off / block)
		skip := int(off % block)
		if whole := len(p) / block; skip == 0 && whole > 0 { // straight into p
			if err := pread(f, p[:whole*block], e.at.offset()+int64(sh.header+i)*block); err != nil {
				return err
			}
			for j := range whole {
				if !good(sums, i+j, p[j*block:(j+1)*block]) {
					return fmt.Errorf("%w: block %d", errBad, i+j)
				}
			}
			p, off = p[whole*block:], off+int64(whole*block)
			continue
		}
		n, err := s.readPart(e, f, sh, sums, i, p, skip)
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readPart copies from one block of the shard to p, and says how much.
func (s *Store) readPart(e entry, f disk.File, sh shape, sums []byte, i int, p []byte, skip int) (int, error) {
	buf := buffers.Get().(*[verifyChunk]byte)
	defer buffers.Put(buf)
	at, size := e.at.offset()+int64(sh.header+i)*block, block
	if i == sh.full {
		size = sh.tail
		if sh.inside {
			at = e.at.offset() + int64(sh.tailAt())
		}
	}
	b := buf[:size]
	if err := pread(f, b, at); err != nil {
		return 0, err
	}
	if !good(sums, i, b) {
		return 0, fmt.Errorf("%w: block %d", errBad, i)
	}
	return copy(p, b[skip:]), nil
}

func good(sums []byte, i int, b []byte) bool {
	return le.Uint32(sums[i*sumSize:]) == crc32.Checksum(b, castagnoli)
}

// pread fills b. A file that ends too early is damaged.
func pread(f disk.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == io.EOF:
		return fmt.Errorf("%w: the file ends", errBad)
	}
	// Also that the file is closed: the segment was removed, or the store closed.
	return fmt.Errorf("%w: %w", errUnread, err)
}

// table returns the checksums of a record.
func (s *Store) table(e entry, f disk.File) ([]byte, error) {
	if sums := s.sums.get(e.at); sums != nil {
		return sums, nil
	}
	h, err := readHeader(f, s.id.Incarnation, e.at, shapeOf(int(e.size)).header)
	if err != nil {
		return nil, err
	}
	if h.kind != kindShard || h.id != e.id() || h.size != e.size {
		return nil, fmt.Errorf("%w: header of %v", errBad, h.id)
	}
	sums := bytes.Clone(h.sums)
	s.sums.put(e.at, sums)
	return sums, nil
}

// readHeader reads a header of so many blocks. Its slices are valid for ever.
func readHeader(f disk.File, inc Incarnation, at place, blocks int) (header, error) {
	b := make([]byte, blocks*block)
	if err := pread(f, b, at.offset()); err != nil {
		return header{}, err
	}
	h, err := decodeHeader(b, inc, at)
	if err != nil {
		return header{}, fmt.Errorf("%w: %w", errBad, err)
	}
	return h, nil
}
