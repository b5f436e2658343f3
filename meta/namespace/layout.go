package namespace

import (
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/lease"
	"dos/meta/state"
)

// layoutScan bounds the extents that one Layout looks at, dead ones included.
const layoutScan = 4 * LayoutMax

func layout(r state.Reader, me meta.SessionID, req Layout) (meta.Layout, error) {
	in, err := fileAt(r, req.Ino)
	if err != nil {
		return meta.Layout{}, err
	}
	if err := lease.MayRead(r, me, req.Ino); err != nil && !req.Stored {
		return meta.Layout{}, err
	}
	if req.Off < 0 || req.Size < 0 || req.Off > forever-req.Size {
		return meta.Layout{}, fmt.Errorf("%d bytes at %d: %w", req.Size, req.Off, meta.Invalid)
	}
	reply := meta.Layout{Attr: in.Attr, End: req.Off + req.Size}
	if req.Size == 0 || in.Extents == 0 {
		return reply, nil
	}
	named := make(map[chunk.StripeID]bool)
	looked, inline, reached := 0, 0, req.Off
	for e := range extents(r, req.Ino, req.Off, reply.End) {
		if len(reply.Extents) == LayoutMax || looked == layoutScan || inline >= replyMax {
			reply.End = reached
			break
		}
		looked++
		reached = e.End()
		if in.dead(e) {
			continue
		}
		inline += len(e.Inline)
		reply.Extents = append(reply.Extents, e.Extent)
		if e.Stripe == 0 || named[e.Stripe] {
			continue
		}
		named[e.Stripe] = true
		s, ok := load[StripeInfo](r, stripeKey(e.Stripe))
		if !ok {
			panic(fmt.Sprintf("namespace: extent at %d of inode %d names stripe %d, which has no row", e.Off, req.Ino, e.Stripe))
		}
		reply.Stripes = append(reply.Stripes, s.Stripe)
	}
	return reply, nil
}
