package session

import (
	"fmt"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

func reserve(tx *state.Tx, req Reserve) (Range, error) {
	info, err := own(tx)
	if err != nil {
		return Range{}, err
	}
	if req.N < 1 || req.N > ReserveMax {
		return Range{}, fmt.Errorf("%d stripes of 1 to %d: %w", req.N, ReserveMax, meta.Invalid)
	}
	c := count(tx)
	got := Range{c.Stripe, c.Stripe + chunk.StripeID(req.N)}
	if n := len(info.Ranges); n > 0 && info.Ranges[n-1].End == got.First {
		info.Ranges[n-1].End = got.End
	} else if n == RangesMax {
		return Range{}, fmt.Errorf("%d ranges that are not used up: %w", n, meta.Busy)
	} else {
		info.Ranges = append(info.Ranges, got)
	}
	c.Stripe = got.End
	tx.Set(counterKey, state.Marshal(c))
	put(tx, info)
	return got, nil
}

// Raise raises the low-water mark of the session of tx. Each command that names
// stripes carries the mark.
func Raise(tx *state.Tx, low chunk.StripeID) error {
	if low == 0 {
		return nil // says nothing
	}
	info, err := own(tx)
	if err != nil {
		return err
	}
	if low <= info.Low {
		return nil
	}
	// A mark above what anybody has reserved would settle IDs that the
	// session is yet to get.
	if next := count(tx).Stripe; low > next {
		return fmt.Errorf("low-water mark %d above the next stripe %d: %w", low, next, meta.Invalid)
	}
	info.Low = low
	info.Ranges = slices.DeleteFunc(info.Ranges, func(r Range) bool { return r.End <= low })
	put(tx, info)
	return nil
}

// Claims returns what tells whether the session of tx may name a stripe for the
// first time: it reserved the ID and has not declared it settled.
func Claims(tx *state.Tx) (func(chunk.StripeID) bool, error) {
	info, err := own(tx)
	if err != nil {
		return nil, err
	}
	return info.holds, nil
}

// holds reports whether the session may still name id for the first time.
func (info Info) holds(id chunk.StripeID) bool {
	return id >= info.Low && slices.ContainsFunc(info.Ranges, func(r Range) bool { return r.First <= id && id < r.End })
}

// Settler returns what tells whether a stripe ID is settled: it was reserved
// once, and nobody can name it for the first time any more.
func Settler(r state.Reader) func(chunk.StripeID) bool {
	next := count(r).Stripe
	var open []Info
	for _, val := range r.Scan([]byte("2s"), state.After([]byte("2s"))) {
		var info Info
		state.MustUnmarshal(val, &info)
		if !info.Ending && len(info.Ranges) > 0 {
			open = append(open, info)
		}
	}
	return func(id chunk.StripeID) bool {
		return id != 0 && id < next && !slices.ContainsFunc(open, func(info Info) bool { return info.holds(id) })
	}
}

func settled(r state.Reader, req IDs) (Settlement, error) {
	if len(req.IDs) > IDsMax {
		return Settlement{}, fmt.Errorf("%d stripes: %w", len(req.IDs), meta.TooLarge)
	}
	is := Settler(r)
	var reply Settlement
	for _, id := range req.IDs {
		reply.Settled = append(reply.Settled, is(id))
	}
	return reply, nil
}
