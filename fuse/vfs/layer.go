package vfs

import (
	"maps"
	"slices"
	"sort"
	"time"
)

// A segment is a run of dirty bytes of a file. It lies within one span.
type segment struct {
	off  int64
	data []byte // within buf.mem
	buf  *buffer
}

func (s *segment) end() int64 { return s.off + int64(len(s.data)) }

// A window holds the segments of one span, in order and not overlapping.
type window struct {
	segs  []*segment
	bytes int       // in all segments
	since time.Time // when the oldest byte was written
}

// after returns the index of the first segment that ends after off.
func (w *window) after(off int64) int { return endsAfter(w.segs, off) }

func endsAfter(segs []*segment, off int64) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].end() > off })
}

// A layer is the dirty data of a file that is not on its way yet. New writes
// change it in place. The inode's mu guards it.
type layer struct {
	mem     *budget
	windows map[int64]*window // by offset / span
	bytes   int64
}

func (l *layer) empty() bool { return len(l.windows) == 0 }

func (l *layer) count(n int) {
	l.bytes += int64(n)
	l.mem.data.Add(int64(n))
}

// since is when the oldest byte was written.
func (l *layer) since() time.Time {
	var oldest time.Time
	for _, w := range l.windows {
		if oldest.IsZero() || w.since.Before(oldest) {
			oldest = w.since
		}
	}
	return oldest
}

// end is the offset after the last dirty byte, or zero.
func (l *layer) end() int64 {
	if l.empty() {
		return 0
	}
	w := l.windows[slices.Max(slices.Collect(maps.Keys(l.windows)))]
	return w.segs[len(w.segs)-1].end()
}

func (l *layer) window(i int64, now time.Time) *window {
	w := l.windows[i]
	if w == nil {
		if l.windows == nil {
			l.windows = make(map[int64]*window)
		}
		w = &window{since: now}
		l.windows[i] = w
	}
	return w
}

// write puts p at off; it must not reach over the span's border. It returns how
// much it took, less than all when memory is short. stream says that the file
// is being written in sequence: its buffers are stripes from the start.
func (l *layer) write(p []byte, off int64, now time.Time, stream bool) int {
	wi := off / span
	w := l.window(wi, now)
	done := 0
	for i := w.after(off); done < len(p); {
		pos := off + int64(done)
		if i < len(w.segs) && w.segs[i].off <= pos {
			done += copy(w.segs[i].data[pos-w.segs[i].off:], p[done:])
			i++
			continue
		}
		n := len(p) - done
		if i < len(w.segs) {
			n = min(n, int(w.segs[i].off-pos))
		}
		if i > 0 && w.segs[i-1].end() == pos {
			if !l.extend(w.segs[i-1], p[done:done+n]) {
				break
			}
		} else {
			most := int((wi+1)*span - pos)
			size := sizeFor(n, most)
			if stream && most == span {
				size = span
			}
			buf := l.mem.alloc(size)
			if buf == nil {
				break
			}
			buf.refs = 1
			s := &segment{pos, buf.mem[:copy(buf.mem, p[done:done+n])], buf}
			w.segs = slices.Insert(w.segs, i, s)
			i++
		}
		done += n
		w.bytes += n
		l.count(n)
	}
	if len(w.segs) == 0 {
		delete(l.windows, wi)
	}
	return done
}

// extend appends p to s, in a larger buffer where it must be.
func (l *layer) extend(s *segment, p []byte) bool {
	if s.buf.refs > 1 || len(s.data)+len(p) > cap(s.data) {
		most := int((s.off/span+1)*span - s.off)
		buf := l.mem.alloc(sizeFor(len(s.data)+len(p), most))
		if buf == nil {
			return false
		}
		buf.refs = 1
		old := s.buf
		s.data, s.buf = buf.mem[:copy(buf.mem, s.data)], buf
		old.refs--
		l.mem.refund(old)
	}
	s.data = append(s.data, p...)
	return true
}

// under puts a segment that was on its way back below what was written since:
// only where nothing newer lies. It takes the segment over.
func (l *layer) under(s *segment, since time.Time) {
	wi := s.off / span
	w := l.window(wi, since)
	if since.Before(w.since) {
		w.since = since
	}
	i := w.after(s.off)
	for pos := s.off; pos < s.end(); {
		end := s.end()
		if i < len(w.segs) {
			end = min(end, w.segs[i].off)
		}
		if pos < end {
			w.segs = slices.Insert(w.segs, i, l.piece(s, pos, end))
			i++
			w.bytes += int(end - pos)
			l.count(int(end - pos))
		}
		if i == len(w.segs) {
			break
		}
		pos = max(pos, w.segs[i].end())
		i++
	}
	l.release(s)
	if len(w.segs) == 0 {
		delete(l.windows, wi)
	}
}

// piece returns a part of s as a segment of its own that shares its buffer.
func (l *layer) piece(s *segment, from, to int64) *segment {
	l.mem.charge()
	s.buf.refs++
	return &segment{from, s.data[from-s.off : to-s.off : to-s.off], s.buf}
}

// release gives a segment's memory back.
func (l *layer) release(s *segment) {
	s.buf.refs--
	l.mem.refund(s.buf)
	s.data, s.buf = nil, nil
}

// take removes what lies in [from, to) and returns it in file order, with the
// time of its oldest byte.
func (l *layer) take(from, to int64) (list []*segment, since time.Time) {
	for _, wi := range l.touched(from, to) {
		w := l.windows[wi]
		var rest []*segment
		took := 0
		for _, s := range w.segs {
			switch {
			case s.end() <= from || s.off >= to:
				rest = append(rest, s)
				continue
			case s.off >= from && s.end() <= to:
				list = append(list, s)
				took += len(s.data)
				continue
			}
			if s.off < from {
				rest = append(rest, l.piece(s, s.off, from))
			}
			mid := l.piece(s, max(from, s.off), min(to, s.end()))
			list = append(list, mid)
			took += len(mid.data)
			if s.end() > to {
				rest = append(rest, l.piece(s, to, s.end()))
			}
			l.release(s)
		}
		if took > 0 && (since.IsZero() || w.since.Before(since)) {
			since = w.since
		}
		l.count(-took)
		w.bytes -= took
		w.segs = rest
		if len(rest) == 0 {
			delete(l.windows, wi)
		}
	}
	return list, since
}

// touched lists the windows that are not wholly outside [from, to), in order.
func (l *layer) touched(from, to int64) []int64 {
	var list []int64
	if first, last := from/span, (to-1)/span; last-first < int64(len(l.windows)) {
		for wi := first; wi <= last; wi++ {
			if l.windows[wi] != nil {
				list = append(list, wi)
			}
		}
		return list
	}
	for wi := range l.windows {
		if (wi+1)*span > from && wi*span < to {
			list = append(list, wi)
		}
	}
	slices.Sort(list)
	return list
}

// cut forgets what lies at off and after it.
func (l *layer) cut(off int64) {
	gone, _ := l.take(off, 1<<63-1)
	for _, s := range gone {
		l.release(s)
	}
}
