package vfs

import (
	"context"

	"dos/meta"
)

// The two values of whence that Seek knows.
const (
	seekData = 3
	seekHole = 4
)

// Seek is lseek(2) for SEEK_DATA (3) and SEEK_HOLE (4). With nothing found, or
// off at or beyond the end, the error is ErrNoData (ENXIO).
func (f *File) Seek(ctx context.Context, off int64, whence uint32) (int64, error) {
	if whence != seekData && whence != seekHole || off < 0 {
		return 0, meta.Invalid
	}
	fs, n := f.fs, f.n
	now, err := fs.now(ctx, n, off)
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	size := n.sizeAt(now)
	n.mu.Unlock()
	if off >= size {
		return 0, ErrNoData
	}
	for off < size {
		start, end, err := fs.dataAfter(ctx, n, off, size, now)
		switch {
		case err != nil:
			return 0, err
		case whence == seekData && start < size:
			return start, nil
		case whence == seekData:
			return 0, ErrNoData
		case start > off:
			return off, nil
		}
		off = end
	}
	return size, nil // every file ends in a hole
}

// dataAfter returns a range that holds data, the first at or after off: it
// begins at off if there is data, and at size if there is none at all. More data may
// follow at its end.
func (fs *FS) dataAfter(ctx context.Context, n *inode, off, size int64, now *meta.Attr) (start, end int64, err error) {
	n.mu.Lock()
	if !n.blank() {
		start, end = n.dirtyAfter(off)
	}
	n.mu.Unlock()
	if end > 0 && start == off {
		return start, min(end, size), nil
	}
	limit := size // nothing that is stored matters from here on
	if end > 0 {
		limit = min(start, size)
	}
	for pos := off; pos < limit; {
		l, err := fs.layoutAt(ctx, n, pos, now)
		if err != nil {
			return 0, 0, err
		}
		i := l.after(pos)
		if i == len(l.extents) && l.end < limit { // none here: one question for all the rest
			a, err := fs.cfg.Meta.Layout(ctx, n.ino, l.end, limit-l.end)
			if err != nil {
				return 0, 0, err
			}
			if a.End <= l.end {
				return 0, 0, meta.Lost
			}
			if len(a.Extents) == 0 {
				pos = a.End
				continue
			}
			pos = max(l.end, a.Extents[0].Off)
			if pos >= limit {
				break
			}
			return pos, min(a.Extents[0].End(), limit), nil
		}
		if i < len(l.extents) && l.extents[i].Off < limit {
			return max(pos, l.extents[i].Off), min(l.extents[i].End(), limit), nil
		}
		break
	}
	if end > 0 && start < size {
		return start, min(end, size), nil
	}
	return size, size, nil
}

// dirtyAfter returns the first dirty range at or after off; end is zero if there
// is none. mu is held.
func (n *inode) dirtyAfter(off int64) (start, end int64) {
	first := func(segs []*segment) bool {
		i := endsAfter(segs, off)
		if i == len(segs) {
			return false
		}
		if s := max(off, segs[i].off); end == 0 || s < start {
			start, end = s, segs[i].end()
		}
		return true
	}
	for _, l := range n.queue {
		first(l.pieces)
	}
	for _, wi := range n.active.touched(off, 1<<63-1) {
		if first(n.active.windows[wi].segs) {
			break
		}
	}
	return start, end
}
