package namespace

import (
	"fmt"
	"iter"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// Keep makes the rows of new stripes that something else than a file names: inode 0
// has them. All their bytes live until as many Unnames as there were Keeps and Shares.
// It refuses a stripe that was named before, or that is not the session's to name.
func Keep(tx *state.Tx, list []chunk.Stripe) error {
	claims, err := session.Claims(tx)
	if err != nil {
		return err
	}
	for _, s := range list {
		switch err := checkStripe(s); {
		case err != nil:
			return fmt.Errorf("stripe %d: %w", s.ID, err)
		case has(tx, stripeKey(s.ID)):
			return fmt.Errorf("stripe %d was named before: %w", s.ID, meta.Conflict)
		case !claims(s.ID):
			return fmt.Errorf("stripe %d is not for session %d to name: %w", s.ID, tx.Session, meta.Invalid)
		}
		save(tx, stripeKey(s.ID), StripeInfo{Stripe: s, Live: int64(s.Len)})
		total(tx, func(t *totals) { t.Bytes += int64(s.Len) })
	}
	return nil
}

// Kept yields the stripes that are kept for other rooms, and how often each is named.
func Kept(r state.Reader) iter.Seq2[chunk.StripeID, int64] {
	return func(yield func(chunk.StripeID, int64) bool) {
		for _, val := range r.Scan([]byte("s"), state.After([]byte("s"))) {
			var s StripeInfo
			if state.Unmarshal(val, &s) != nil || s.Owner != 0 || s.Live == 0 {
				continue // it is a file's, dead, or damaged, of which Check tells
			}
			if !yield(s.Stripe.ID, s.Live/int64(max(s.Stripe.Len, 1))) {
				return
			}
		}
	}
}

// Share says that kept stripes are named once more.
func Share(tx *state.Tx, ids []chunk.StripeID) { keep(tx, ids, 1) }

// Unname says that kept stripes are named once less. Those that nothing names die.
func Unname(tx *state.Tx, ids []chunk.StripeID) { keep(tx, ids, -1) }

func keep(tx *state.Tx, ids []chunk.StripeID, sign int64) {
	for _, id := range ids {
		s, ok := load[StripeInfo](tx, stripeKey(id))
		if !ok || s.Owner != 0 || s.Live == 0 {
			panic(fmt.Sprintf("namespace: stripe %d is named and not kept: %+v", id, s))
		}
		change := sign * int64(s.Stripe.Len)
		if s.Live += change; s.Live == 0 {
			s.Died = max(meta.At(tx.Now), 1)
			tx.Set(deadKey(s.Died, id), []byte{})
		}
		save(tx, stripeKey(id), s)
		total(tx, func(t *totals) { t.Bytes += change })
	}
}
