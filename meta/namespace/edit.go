package namespace

import (
	"fmt"
	"maps"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

const (
	// ReplaceMax bounds the extents that one Write or Swap may replace: each
	// is up to three rows, and the replica has a limit on the rows of a batch.
	ReplaceMax = 8192
	// cutNow is how many extents a truncation or punch removes at once;
	// when there are more, they die and Purge removes them.
	cutNow = 512
	// cutsMax bounds the cuts of a file that wait for Purge, which its row holds.
	cutsMax = 64
)

// Fold rules. Small stripes cost a request each to read and a row each here;
// a few do not matter, and stripes of a quarter of the largest size read
// nearly as fast.
const (
	smallCount   = 16
	smallAverage = chunk.MaxStripe / 4
)

// An extent is a meta.Extent with its generation.
type extent struct {
	meta.Extent
	gen uint64
}

func (e *extent) row() extentRow {
	row := extentRow{Stripe: e.Stripe, At: e.At, Inline: e.Inline, Gen: e.gen}
	if e.Stripe != 0 {
		row.Len = e.Len
	}
	return row
}

// part returns the part of the extent in the range, which is within it.
func (e extent) part(from, to int64) extent {
	p := e
	p.Off, p.Len = from, to-from
	if e.Stripe != 0 {
		p.At += uint32(from - e.Off)
	} else {
		p.Inline = e.Inline[from-e.Off : to-e.Off]
	}
	return p
}

func extentOf(key, val []byte) extent {
	var row extentRow
	state.MustUnmarshal(val, &row)
	if row.Stripe == 0 {
		row.Len = int64(len(row.Inline))
	}
	end := int64(second(key))
	return extent{meta.Extent{Off: end - row.Len, Len: row.Len, Stripe: row.Stripe, At: row.At, Inline: row.Inline}, row.Gen}
}

// extents yields the extents of the inode that touch the range, dead ones too.
func extents(r state.Reader, ino meta.Ino, from, to int64) func(yield func(extent) bool) {
	return func(yield func(extent) bool) {
		for k, val := range r.Scan(extentKey(ino, from+1), state.After(key('x', uint64(ino)))) {
			if e := extentOf(k, val); e.Off >= to || !yield(e) {
				return
			}
		}
	}
}

// covering returns the extent that holds the byte at off.
func covering(r state.Reader, ino meta.Ino, off int64) (found extent, ok bool) {
	extents(r, ino, off, off+1)(func(e extent) bool {
		found, ok = e, true
		return false
	})
	return found, ok
}

// dead reports whether a cut hides the extent.
func (in *inode) dead(e extent) bool {
	return slices.ContainsFunc(in.Cuts, func(c cut) bool {
		return c.From <= e.Off && e.End() <= c.To && e.gen < c.Gen
	})
}

// A stripeRow is a row "s" that an edit works on.
type stripeRow struct {
	StripeInfo
	before int64 // live bytes in the state; zero for a new one
}

// An edit changes extents of an inode. What it does to stripes, counters and
// the inode's row is written by done.
type edit struct {
	tx      *state.Tx
	ino     meta.Ino
	in      *inode // the counters of a throw-away one while the inode is purged
	stripes map[chunk.StripeID]*stripeRow
	bytes   int64 // added to the total
	budget  int   // extents that may still be replaced
	changed bool  // readers see other extents than before
	why     Reason
}

func editOf(tx *state.Tx, in *inode) *edit {
	return &edit{tx: tx, ino: in.Attr.Ino, in: in, stripes: make(map[chunk.StripeID]*stripeRow), budget: ReplaceMax}
}

// stripe returns the row of a stripe, nil if there is none.
func (ed *edit) stripe(id chunk.StripeID) *stripeRow {
	if s, ok := ed.stripes[id]; ok {
		return s
	}
	info, ok := load[StripeInfo](ed.tx, stripeKey(id))
	if !ok {
		return nil
	}
	s := &stripeRow{info, info.Live}
	ed.stripes[id] = s
	return s
}

func (ed *edit) count(e extent, sign int64) {
	ed.in.Extents += sign
	ed.in.Attr.Bytes += sign * e.Len
	ed.bytes += sign * e.Len
	if e.Stripe == 0 {
		ed.in.Inline += sign * e.Len
		return
	}
	s := ed.stripe(e.Stripe)
	if s == nil {
		panic(fmt.Sprintf("namespace: extent at %d of inode %d names stripe %d, which has no row", e.Off, ed.ino, e.Stripe))
	}
	s.Live += sign * e.Len
}

func (ed *edit) put(e extent) {
	save(ed.tx, extentKey(ed.ino, e.End()), e.row())
	ed.count(e, 1)
}

func (ed *edit) remove(e extent) {
	ed.tx.Delete(extentKey(ed.ino, e.End()))
	ed.count(e, -1)
}

// clear removes what is in the range, dead or alive.
func (ed *edit) clear(from, to int64) error {
	var old []extent
	for e := range extents(ed.tx, ed.ino, from, to) {
		if len(old) == ed.budget {
			return fmt.Errorf("more than %d extents are replaced: %w", ReplaceMax, meta.TooLarge)
		}
		old = append(old, e)
	}
	ed.budget -= len(old)
	for _, e := range old {
		if !ed.in.dead(e) {
			ed.changed = true
		}
		ed.remove(e)
		if e.Off < from {
			ed.put(e.part(e.Off, from))
		}
		if e.End() > to {
			ed.put(e.part(to, e.End()))
		}
	}
	return nil
}

// cut makes the range a hole: at once if few extents are in it, else by a cut
// that Purge completes.
func (ed *edit) cut(from, to int64) error {
	n := 0
	for range extents(ed.tx, ed.ino, from, to) {
		if n++; n > min(cutNow, ed.budget) {
			break
		}
	}
	if n <= min(cutNow, ed.budget) {
		return ed.clear(from, to)
	}
	ed.split(from)
	ed.split(to)
	ed.changed = true
	in := ed.in
	in.Gen++
	in.Cuts = slices.DeleteFunc(in.Cuts, func(c cut) bool { return from <= c.From && c.To <= to })
	if len(in.Cuts) >= cutsMax {
		return fmt.Errorf("inode %d has %d ranges to be purged first: %w", ed.ino, len(in.Cuts), meta.Unavailable)
	}
	in.Cuts = append(in.Cuts, cut{from, to, in.Gen})
	ed.tx.Set(purgeKey(ed.ino), []byte{})
	return nil
}

// split makes two of the extent that covers both sides of off.
func (ed *edit) split(off int64) {
	if e, ok := covering(ed.tx, ed.ino, off); ok && e.Off < off {
		ed.remove(e)
		ed.put(e.part(e.Off, off))
		ed.put(e.part(off, e.End()))
	}
}

// join makes one of the two small inline extents that meet at off, so that
// small appends do not leave an extent each.
func (ed *edit) join(off int64) {
	val, ok := ed.tx.Get(extentKey(ed.ino, off))
	if !ok {
		return
	}
	left := extentOf(extentKey(ed.ino, off), val)
	right, ok := covering(ed.tx, ed.ino, off)
	if !ok || left.Stripe != 0 || right.Stripe != 0 || left.Len+right.Len > meta.InlineFile || ed.in.dead(left) || ed.in.dead(right) {
		return
	}
	ed.remove(left)
	ed.remove(right)
	both := meta.Extent{Off: left.Off, Len: left.Len + right.Len, Inline: slices.Concat(left.Inline, right.Inline)}
	ed.put(extent{both, ed.in.Gen})
}

// done writes what the edit did to the stripes, the totals and the fold
// candidates. The caller saves the inode.
func (ed *edit) done() error {
	now := max(meta.At(ed.tx.Now), 1) // zero is alive
	for _, id := range slices.Sorted(maps.Keys(ed.stripes)) {
		s := ed.stripes[id]
		switch {
		case s.Live == s.before:
			continue
		case s.Live < 0:
			panic(fmt.Sprintf("namespace: stripe %d has %d live bytes", id, s.Live))
		case s.Live > int64(s.Stripe.Len):
			return fmt.Errorf("%d bytes of stripe %d named, which has %d: %w", s.Live, id, s.Stripe.Len, meta.Invalid)
		case s.Live == 0:
			s.Died = now
			ed.tx.Set(deadKey(now, id), []byte{})
			ed.in.Stripes--
		case s.before == 0:
			ed.in.Stripes++
		}
		if 0 < s.Live && s.Live*2 < int64(s.Stripe.Len) {
			ed.why |= HalfDead
		}
		save(ed.tx, stripeKey(id), s.StripeInfo)
	}
	if ed.changed {
		ed.in.Attr.Data++
	}
	if ed.bytes != 0 {
		total(ed.tx, func(t *totals) { t.Bytes += ed.bytes })
	}
	return nil
}

// mark records why the file is worth folding.
func (ed *edit) mark() {
	in := ed.in
	if in.Inline > 0 && in.Attr.Size > meta.InlineFile {
		ed.why |= Inlined
	}
	if in.Stripes > smallCount && (in.Attr.Bytes-in.Inline)/in.Stripes < smallAverage {
		ed.why |= Small
	}
	if ed.why == 0 {
		return
	}
	row, ok := load[foldRow](ed.tx, foldKey(ed.ino))
	if !ok {
		row.Since = meta.At(ed.tx.Now)
	}
	if !ok || row.Reason|ed.why != row.Reason {
		row.Reason |= ed.why
		save(ed.tx, foldKey(ed.ino), row)
	}
}
