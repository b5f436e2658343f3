package fold

import (
	"slices"

	"dos/chunk"
)

const (
	// Window is the part of a file that becomes one stripe.
	Window = chunk.MaxStripe
	// inlineFile is the size in bytes of a file whose data stays inline.
	inlineFile = 4 << 10
	// runMax bounds the extents of one rewritten window; a window that is more
	// full of holes stays as it is.
	runMax = 4096
)

// plan says whether a window's data is to be rewritten as one stripe, and
// returns the pieces of it, cut to the window, in order. size is the file's;
// best says which code a stripe of n bytes would get now.
func plan(l Layout, from, size int64, best func(n int) chunk.Code) []Extent {
	pieces := clip(l.Extents, from, from+Window)
	if len(pieces) == 0 {
		return nil
	}
	total, inline := int64(0), false
	runs := 0
	stripes := make(map[chunk.StripeID]int64) // bytes that live here
	for i, e := range pieces {
		total += e.Len
		if e.Stripe == 0 {
			inline = true
		} else {
			stripes[e.Stripe] += e.Len
		}
		if i == 0 || pieces[i-1].end() != e.Off {
			runs++
		}
	}
	to := best(int(total))
	switch {
	case to.K == 0 || runs > runMax:
		return nil
	case inline && len(stripes) == 0 && size <= inlineFile:
		return nil
	case inline || len(stripes) > 1:
		return pieces
	}
	at := slices.IndexFunc(l.Stripes, func(s chunk.Stripe) bool { return s.ID == pieces[0].Stripe })
	if at < 0 {
		return nil // the layout does not say; the read would fail
	}
	s := l.Stripes[at]
	if 2*stripes[s.ID] < int64(s.Len) { // mostly dead, or of another window
		return pieces
	}
	if to.M >= s.Code.M && (to.M > s.Code.M || to.K > s.Code.K) { // short
		return pieces
	}
	return nil
}

// clip returns the parts of extents that lie within a range.
func clip(extents []Extent, from, to int64) []Extent {
	var pieces []Extent
	for _, e := range extents {
		if e.end() <= from || e.Off >= to {
			continue
		}
		if cut := from - e.Off; cut > 0 {
			e.Off += cut
			e.Len -= cut
			if e.Stripe == 0 {
				e.Inline = e.Inline[cut:]
			} else {
				e.At += uint32(cut)
			}
		}
		if e.end() > to {
			e.Len = to - e.Off
			if e.Stripe == 0 {
				e.Inline = e.Inline[:e.Len]
			}
		}
		pieces = append(pieces, e)
	}
	return pieces
}

// pack returns the extents of the new stripe that holds the pieces one after
// another. Holes stay holes.
func pack(id chunk.StripeID, pieces []Extent) []Extent {
	var extents []Extent
	at := int64(0)
	for _, e := range pieces {
		if n := len(extents); n > 0 && extents[n-1].end() == e.Off {
			extents[n-1].Len += e.Len
		} else {
			extents = append(extents, Extent{Off: e.Off, Len: e.Len, Stripe: id, At: uint32(at)})
		}
		at += e.Len
	}
	return extents
}
