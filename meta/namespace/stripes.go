package namespace

import (
	"fmt"
	"maps"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// storedScan bounds the rows that one Stored looks at.
const storedScan = 1 << 16

// stripesScan bounds the rows that one Stripes looks at for short ones.
const stripesScan = 4 * ListMax

func stripes(r state.Reader, req Stripes) (StripesReply, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return StripesReply{}, err
	}
	reply := StripesReply{Next: req.After}
	looked := 0
	for _, val := range r.Scan(append(stripeKey(req.After), 0), state.After([]byte("s"))) {
		if len(reply.Stripes) == limit || looked == stripesScan {
			reply.More = true
			break
		}
		looked++
		var s StripeInfo
		state.MustUnmarshal(val, &s)
		reply.Next = s.Stripe.ID
		if req.Short == (chunk.Code{}) || s.short(req.Short) {
			reply.Stripes = append(reply.Stripes, s)
		}
	}
	return reply, nil
}

// short reports whether the stripe is coded worse than the cluster would now.
func (s StripeInfo) short(want chunk.Code) bool {
	if s.Stripe.Len <= chunk.CopyMax {
		want.K = 1
	}
	return s.Live > 0 && (s.Stripe.Code.K < want.K || s.Stripe.Code.M < want.M)
}

func stripe(r state.Reader, req StripeIDs) (StripesReply, error) {
	if len(req.IDs) > ListMax {
		return StripesReply{}, fmt.Errorf("%d stripes of at most %d: %w", len(req.IDs), ListMax, meta.TooLarge)
	}
	var reply StripesReply
	for _, id := range req.IDs {
		if s, ok := load[StripeInfo](r, stripeKey(id)); ok {
			reply.Stripes = append(reply.Stripes, s)
		}
	}
	return reply, nil
}

// unnamed returns which stripes are garbage for certain: no row is theirs, and
// who could name them has ended or declared them settled.
func unnamed(r state.Reader, req StripeIDs) (StripeIDs, error) {
	if len(req.IDs) > ListMax {
		return StripeIDs{}, fmt.Errorf("%d stripes of at most %d: %w", len(req.IDs), ListMax, meta.TooLarge)
	}
	settled := session.Settler(r)
	var reply StripeIDs
	for _, id := range req.IDs {
		if settled(id) && !has(r, stripeKey(id)) {
			reply.IDs = append(reply.IDs, id)
		}
	}
	return reply, nil
}

func stored(r state.Reader, req Stored) (StoredReply, error) {
	reply := StoredReply{Next: req.After}
	loads := make(map[chunk.StoreID]*Load)
	looked := 0
	for _, val := range r.Scan(append(stripeKey(req.After), 0), state.After([]byte("s"))) {
		if looked == storedScan {
			reply.More = true
			break
		}
		looked++
		var s StripeInfo
		state.MustUnmarshal(val, &s)
		reply.Next = s.Stripe.ID
		if s.Live == 0 {
			continue
		}
		for _, id := range s.Stripe.Stores {
			l := loads[id]
			if l == nil {
				l = &Load{Store: id}
				loads[id] = l
			}
			l.Shards++
			l.Bytes += int64(s.Stripe.Code.Cell(int(s.Stripe.Len)))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(loads)) {
		reply.Loads = append(reply.Loads, *loads[id])
	}
	return reply, nil
}

func move(tx *state.Tx, req Moves) (Moved, error) {
	if len(req.Moves) > ListMax {
		return Moved{}, fmt.Errorf("%d moves of at most %d: %w", len(req.Moves), ListMax, meta.TooLarge)
	}
	var reply Moved
	for _, m := range req.Moves {
		s, ok := load[StripeInfo](tx, stripeKey(m.Stripe))
		ok = ok && m.To != 0 && int(m.Index) < len(s.Stripe.Stores) &&
			s.Stripe.Stores[m.Index] == m.From && !slices.Contains(s.Stripe.Stores, m.To)
		if ok {
			s.Stripe.Stores[m.Index] = m.To
			save(tx, stripeKey(m.Stripe), s)
		}
		reply.Done = append(reply.Done, ok)
	}
	return reply, nil
}

func folds(r state.Reader, req After) (FoldsReply, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return FoldsReply{}, err
	}
	var reply FoldsReply
	for k, val := range r.Scan(append(foldKey(req.After), 0), state.After([]byte("f"))) {
		if len(reply.Folds) == limit {
			reply.More = true
			break
		}
		var row foldRow
		state.MustUnmarshal(val, &row)
		reply.Folds = append(reply.Folds, Fold{meta.Ino(second(k)), row.Since, row.Reason})
	}
	return reply, nil
}
