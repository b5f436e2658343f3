package namespace

import (
	"fmt"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/lease"
	"dos/meta/session"
	"dos/meta/state"
)

func write(tx *state.Tx, w meta.Write) (meta.Attr, error) {
	in, err := fileAt(tx, w.Ino)
	if err != nil {
		return meta.Attr{}, err
	}
	if err := in.mayChange(tx); err != nil && !w.Held {
		return meta.Attr{}, err
	}
	if w.Held && (tx.Session == 0 || lease.Holder(tx, w.Ino) != tx.Session) {
		return meta.Attr{}, fmt.Errorf("session %d does not hold the lease of inode %d any more: %w", tx.Session, w.Ino, meta.Expired)
	}
	if err := in.admitted(tx); err != nil {
		return meta.Attr{}, err
	}
	if err := checkExtents(w.Extents, len(w.Punch)); err != nil {
		return meta.Attr{}, err
	}
	for _, p := range w.Punch {
		if err := checkRange(p.Off, p.Len); err != nil {
			return meta.Attr{}, fmt.Errorf("hole: %w", err)
		}
	}
	if err := checkSize(w.Size); err != nil {
		return meta.Attr{}, err
	}
	ed := editOf(tx, in)
	if err := ed.admit(w.Extents, w.Stripes); err != nil {
		return meta.Attr{}, err
	}
	for _, p := range w.Punch {
		if err := ed.cut(p.Off, p.Off+p.Len); err != nil {
			return meta.Attr{}, err
		}
	}
	if err := ed.place(w.Extents); err != nil {
		return meta.Attr{}, err
	}
	size := max(in.Attr.Size, w.Size)
	if n := len(w.Extents); n > 0 {
		size = max(size, w.Extents[n-1].End())
		in.forget(tx, capability)
	}
	before := in.Attr
	in.Attr.Size = size
	if w.Mtime != 0 {
		in.Attr.Mtime = w.Mtime
	}
	if w.KillPriv {
		in.killPriv()
	}
	if err := ed.done(); err != nil {
		return meta.Attr{}, err
	}
	switch {
	case w.Mtime != 0:
		// The program saw this time when it wrote. If ctime moved again when the
		// data left the writer's memory, git would take each file that it has
		// just checked out for changed.
		in.Attr.Ctime = max(in.Attr.Ctime, w.Mtime)
	case in.Attr != before || len(w.Punch) > 0:
		in.touch(tx)
	}
	ed.mark()
	put(tx, in)
	if w.Give && lease.Holder(tx, w.Ino) == tx.Session {
		lease.Drop(tx, w.Ino)
	}
	return in.Attr, session.Raise(tx, w.Low)
}

// place puts extents where others may be.
func (ed *edit) place(list []meta.Extent) error {
	for _, e := range list {
		if err := ed.clear(e.Off, e.End()); err != nil {
			return err
		}
		ed.put(extent{e, ed.in.Gen})
		ed.changed = true
	}
	for _, e := range list {
		if e.Stripe == 0 && e.Len < meta.InlineFile {
			ed.join(e.Off)
			ed.join(e.End())
		}
	}
	return nil
}

// admit checks that every stripe that the extents name may be named by them,
// and adds the rows of the new ones.
func (ed *edit) admit(list []meta.Extent, stripes []chunk.Stripe) error {
	if len(stripes) > len(list) {
		return fmt.Errorf("%d stripes for %d extents: %w", len(stripes), len(list), meta.Invalid)
	}
	listed := make(map[chunk.StripeID]bool, len(stripes)) // and whether an extent names it
	var claims func(chunk.StripeID) bool
	for _, s := range stripes {
		if err := checkStripe(s); err != nil {
			return fmt.Errorf("stripe %d: %w", s.ID, err)
		}
		if _, twice := listed[s.ID]; twice {
			return fmt.Errorf("stripe %d is listed twice: %w", s.ID, meta.Invalid)
		}
		listed[s.ID] = false
		if old := ed.stripe(s.ID); old != nil {
			// Repair may have moved shards meanwhile; the row is right about that.
			if old.Stripe.Len != s.Len || old.Stripe.Code != s.Code {
				return fmt.Errorf("stripe %d is known as another: %w", s.ID, meta.Invalid)
			}
			continue
		}
		if claims == nil {
			var err error
			if claims, err = session.Claims(ed.tx); err != nil {
				return err
			}
		}
		if !claims(s.ID) {
			return fmt.Errorf("stripe %d is not for session %d to name: %w", s.ID, ed.tx.Session, meta.Invalid)
		}
		ed.stripes[s.ID] = &stripeRow{StripeInfo: StripeInfo{Stripe: s, Owner: ed.ino}}
	}
	for _, e := range list {
		if e.Stripe == 0 {
			continue
		}
		s := ed.stripe(e.Stripe)
		switch {
		case s == nil:
			return fmt.Errorf("stripe %d is unknown: %w", e.Stripe, meta.Invalid)
		case s.Owner != ed.ino:
			return fmt.Errorf("stripe %d belongs to inode %d: %w", e.Stripe, s.Owner, meta.Invalid)
		case s.Died != 0:
			return fmt.Errorf("stripe %d is dead: %w", e.Stripe, meta.Conflict)
		case int64(e.At)+e.Len > int64(s.Stripe.Len):
			return fmt.Errorf("bytes %d to %d of stripe %d, which has %d: %w", e.At, int64(e.At)+e.Len, e.Stripe, s.Stripe.Len, meta.Invalid)
		}
		if _, ok := listed[e.Stripe]; ok {
			listed[e.Stripe] = true
		}
	}
	for _, s := range stripes {
		if !listed[s.ID] {
			return fmt.Errorf("stripe %d is listed but not named: %w", s.ID, meta.Invalid)
		}
	}
	return nil
}

func checkStripe(s chunk.Stripe) error {
	switch {
	case s.ID == 0 || s.Len == 0 || s.Len > chunk.MaxStripe:
		return fmt.Errorf("%d bytes: %w", s.Len, meta.Invalid)
	case s.Code.K == 0 || s.Code.Shards() > chunk.MaxShards || len(s.Stores) != s.Code.Shards():
		return fmt.Errorf("code %v on %d stores: %w", s.Code, len(s.Stores), meta.Invalid)
	}
	sorted := slices.Sorted(slices.Values(s.Stores))
	if sorted[0] == 0 || len(slices.Compact(sorted)) != len(s.Stores) {
		return fmt.Errorf("stores %v: %w", s.Stores, meta.Invalid)
	}
	return nil
}

// checkExtents checks what can be checked without looking at the file.
func checkExtents(list []meta.Extent, others int) error {
	if n := len(list) + others; n > meta.BatchMax {
		return fmt.Errorf("%d extents of at most %d: %w", n, meta.BatchMax, meta.TooLarge)
	}
	var end, inline int64
	for _, e := range list {
		if err := checkRange(e.Off, e.Len); err != nil {
			return fmt.Errorf("extent: %w", err)
		}
		switch {
		case e.Off < end:
			return fmt.Errorf("extent at %d follows one up to %d: %w", e.Off, end, meta.Invalid)
		case e.Stripe != 0 && len(e.Inline) > 0:
			return fmt.Errorf("extent at %d is inline and in stripe %d: %w", e.Off, e.Stripe, meta.Invalid)
		case e.Stripe == 0 && (e.At != 0 || int64(len(e.Inline)) != e.Len):
			return fmt.Errorf("extent at %d of %d bytes with %d inline: %w", e.Off, e.Len, len(e.Inline), meta.Invalid)
		}
		end = e.End()
		inline += int64(len(e.Inline))
	}
	if inline > meta.InlineMax {
		return fmt.Errorf("%d bytes of inline data: %w", inline, meta.TooLarge)
	}
	return nil
}

func checkRange(off, size int64) error {
	switch {
	case off < 0 || size < 1:
		return fmt.Errorf("%d bytes at %d: %w", size, off, meta.Invalid)
	case off > meta.SizeMax || size > meta.SizeMax-off:
		return fmt.Errorf("%d bytes at %d: %w", size, off, meta.TooLarge)
	}
	return nil
}

func checkSize(size int64) error {
	switch {
	case size < 0:
		return fmt.Errorf("size %d: %w", size, meta.Invalid)
	case size > meta.SizeMax:
		return fmt.Errorf("size %d: %w", size, meta.TooLarge)
	}
	return nil
}
