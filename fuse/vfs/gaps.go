package vfs

// A gap is a part of a read that still has to be found: p is to hold the
// file's bytes from off.
type gap struct {
	p   []byte
	off int64
}

func (g gap) end() int64 { return g.off + int64(len(g.p)) }

// overlay copies what segs, which are in order, have of the gaps, and returns
// the gaps that are left.
func overlay(gaps []gap, segs []*segment) []gap {
	var left []gap
	for k, g := range gaps {
		i := endsAfter(segs, g.off)
		if i == len(segs) || segs[i].off >= g.end() { // nothing of this gap
			if left != nil {
				left = append(left, g)
			}
			continue
		}
		if left == nil {
			left = append(make([]gap, 0, len(gaps)+1), gaps[:k]...)
		}
		for ; i < len(segs) && segs[i].off < g.end(); i++ {
			s := segs[i]
			if n := s.off - g.off; n > 0 {
				left = append(left, gap{g.p[:n], g.off})
				g = gap{g.p[n:], s.off}
			}
			n := copy(g.p, s.data[g.off-s.off:])
			g = gap{g.p[n:], g.off + int64(n)}
		}
		if len(g.p) > 0 {
			left = append(left, g)
		}
	}
	if left == nil {
		return gaps
	}
	return left
}

// overlay copies what the layer has of the gaps.
func (l *layer) overlay(gaps []gap) []gap {
	if l.empty() || len(gaps) == 0 {
		return gaps
	}
	first, last := gaps[0].off/span, (gaps[len(gaps)-1].end()-1)/span
	for wi := first; wi <= last && len(gaps) > 0; wi++ {
		if w := l.windows[wi]; w != nil {
			gaps = overlay(gaps, w.segs)
		}
	}
	return gaps
}
