package namespace

import (
	"fmt"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

func swap(tx *state.Tx, req meta.Swap) (meta.Attr, error) {
	in, err := fileAt(tx, req.Ino)
	if err != nil {
		return meta.Attr{}, err
	}
	if in.Attr.Data != req.Data {
		return meta.Attr{}, fmt.Errorf("data version %d, not %d: %w", in.Attr.Data, req.Data, meta.Conflict)
	}
	if err := checkExtents(req.Extents, 0); err != nil {
		return meta.Attr{}, err
	}
	ed := editOf(tx, in)
	if err := ed.admit(req.Extents, req.Stripes); err != nil {
		return meta.Attr{}, err
	}
	for _, e := range req.Extents {
		if off := ed.hole(e.Off, e.End()); off < e.End() {
			return meta.Attr{}, fmt.Errorf("a hole at %d would get bytes: %w", off, meta.Invalid)
		}
	}
	if err := ed.place(req.Extents); err != nil {
		return meta.Attr{}, err
	}
	if err := ed.done(); err != nil {
		return meta.Attr{}, err
	}
	if req.Done {
		remove(tx, foldKey(req.Ino))
	} else {
		ed.mark()
	}
	put(tx, in)
	return in.Attr, session.Raise(tx, req.Low)
}

// hole returns the first offset in the range where the file has a hole, the
// end of the range if it has none.
func (ed *edit) hole(from, to int64) int64 {
	for e := range extents(ed.tx, ed.ino, from, to) {
		if ed.in.dead(e) {
			continue
		}
		if e.Off > from {
			return from
		}
		from = e.End()
	}
	return min(from, to)
}
