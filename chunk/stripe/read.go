package stripe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"dos/chunk"
	"dos/chunk/erasure"
)

// Read fills b from offset off of the stripe. Each cell comes straight from
// the store that has it; if that store fails or is slow, the same range of
// other shards gives it. ErrTooFew when too few shards can be reached or
// verified, ErrNotExist when every live store of the stripe says that it never
// had its shard; ErrGone besides when no store is away.
func (p *Path) Read(ctx context.Context, s chunk.Stripe, b []byte, off int64) error {
	switch err := erasure.Check(s.Code); {
	case err != nil:
		return err
	case len(s.Stores) != s.Code.Shards():
		return fmt.Errorf("stripe %016x: %d stores for code %v", uint64(s.ID), len(s.Stores), s.Code)
	case off < 0 || off+int64(len(b)) > int64(s.Len):
		return fmt.Errorf("stripe %016x: read of [%d,%d) of %d bytes", uint64(s.ID), off, off+int64(len(b)), s.Len)
	case len(b) == 0:
		return nil
	}
	began, changed := time.Now(), p.changed()
	err := p.read(ctx, s, b, off)
	if !away(err) || changed == nil {
		return err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, began.Add(p.config.Timeout), errTimeout)
	defer cancel()
	for away(err) && p.wait(ctx, changed) {
		changed = p.changed()
		if again := p.read(ctx, s, b, off); again == nil || ctx.Err() == nil {
			err = again
		}
	}
	return err
}

// read is one attempt of Read.
func (p *Path) read(ctx context.Context, s chunk.Stripe, b []byte, off int64) error {
	cell := s.Code.Cell(int(s.Len))
	first, last := int(off)/cell, (int(off)+len(b)-1)/cell
	if s.Code.K == 1 {
		first = p.copyOf(&s)
		last = first
	}
	if first == last {
		c := &want{stripe: &s, index: first, off: off - int64(first*cell), b: b}
		if s.Code.K == 1 {
			c.off = off
		}
		return p.one(ctx, c)
	}
	return p.several(ctx, &s, b, int(off), cell, first, last)
}

// A want is a range of one shard.
type want struct {
	stripe *chunk.Stripe
	index  int
	off    int64 // in the shard
	b      []byte

	why   answers // what stores said that did not have it
	final bool    // others have been asked already
}

func (w *want) id() chunk.ID { return chunk.ID{Stripe: w.stripe.ID, Index: uint8(w.index)} }

// copyOf chooses the copy to read: the first on a store that can be trusted.
func (p *Path) copyOf(s *chunk.Stripe) int {
	best := -1
	for i, id := range s.Stores {
		if _, live := p.config.Cluster.Store(id); !live {
			continue
		}
		if !p.doubtful(id) {
			return i
		}
		if best < 0 {
			best = i
		}
	}
	return max(best, 0)
}

// one reads one cell in the caller's goroutine.
func (p *Path) one(ctx context.Context, w *want) error {
	if p.direct(ctx, w) == nil {
		return nil
	}
	return p.others(ctx, w, nil)
}

// several reads a range that spans cells, each from its store at the same
// time. What fails is computed from the cells that did not, as far as they go.
func (p *Path) several(ctx context.Context, s *chunk.Stripe, b []byte, off, cell, first, last int) error {
	wants := make([]want, last-first+1)
	errs := make([]error, len(wants))
	for i := range wants {
		from, to := max(off, (first+i)*cell), min(off+len(b), (first+i+1)*cell)
		wants[i] = want{stripe: s, index: first + i, off: int64(from - (first+i)*cell), b: b[from-off : to-off : to-off]}
	}
	var wg sync.WaitGroup
	for i := 1; i < len(wants); i++ {
		wg.Go(func() { errs[i] = p.direct(ctx, &wants[i]) })
	}
	errs[0] = p.direct(ctx, &wants[0])
	wg.Wait()
	for i := range wants {
		if errs[i] == nil {
			continue
		}
		if err := p.others(ctx, &wants[i], wants2have(wants, errs, i)); err != nil {
			return err
		}
		errs[i] = nil
	}
	return nil
}

// wants2have returns the parts of cells that were read and that cover the
// range wanted of cell i, by index.
func wants2have(wants []want, errs []error, i int) map[int][]byte {
	have := make(map[int][]byte)
	from, to := wants[i].off, wants[i].off+int64(len(wants[i].b))
	for j := range wants {
		w := &wants[j]
		if errs[j] == nil && w.off <= from && to <= w.off+int64(len(w.b)) {
			have[w.index] = w.b[from-w.off : to-w.off]
		}
	}
	return have
}

// others computes w from other shards than its own, which failed.
func (p *Path) others(ctx context.Context, w *want, have map[int][]byte) error {
	if w.final || ctx.Err() != nil {
		return p.failed(ctx, w)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Timeout, errTimeout)
	defer cancel()
	if !p.gather(ctx, w, w.b, have) {
		return p.failed(ctx, w)
	}
	p.report(w)
	return nil
}

// report tells of the shards that are missing or corrupt where live stores
// should have them.
func (p *Path) report(w *want) {
	for i, err := range w.why {
		if errors.Is(err, chunk.ErrCorrupt) || errors.Is(err, chunk.ErrNotExist) || errors.Is(err, errShort) {
			p.config.Damaged(chunk.ID{Stripe: w.stripe.ID, Index: uint8(i)})
		}
	}
}

// failed says why w cannot be had.
func (p *Path) failed(ctx context.Context, w *want) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) { // the caller has gone
		return context.Cause(ctx)
	}
	kind := chunk.ErrTooFew
	gone := true
	never := 0
	if slices.ContainsFunc(slices.Collect(maps.Values(w.why)), func(err error) bool { return !aboutShard(err) }) {
		gone = false
	}
	all := make(failures)
	for i, store := range w.stripe.Stores {
		switch err := w.why[i]; {
		case err == nil:
			continue
		case errors.Is(err, errNotLive):
		case errors.Is(err, chunk.ErrNotExist):
			never++
		default:
			never = -len(w.stripe.Stores) // one that knows it is enough
		}
		all[store] = w.why[i]
	}
	if never > 0 && len(all) == len(w.stripe.Stores) {
		kind = chunk.ErrNotExist
	} else {
		p.report(w)
	}
	if gone && len(all) > int(w.stripe.Code.M) {
		kind = fmt.Errorf("%w: %w", kind, chunk.ErrGone)
	}
	return fmt.Errorf("stripe %016x (%v): cannot read shard %d: %v: %w", uint64(w.stripe.ID), w.stripe.Code, w.index, all, kind)
}

// answers are what stores said instead of the shard, by index.
type answers map[int]error

func (a *answers) add(i int, err error) {
	if *a == nil {
		*a = make(answers)
	}
	(*a)[i] = err
}

var errShort = errors.New("shard is too short")

// away reports whether a store that does not answer may have what is missing.
func away(err error) bool { return errors.Is(err, chunk.ErrTooFew) && !errors.Is(err, chunk.ErrGone) }

// readFull fills b from one shard.
func readFull(ctx context.Context, s chunk.Store, id chunk.ID, b []byte, off int64) error {
	n, err := s.ReadAt(ctx, id, b, off)
	switch {
	case n == len(b) && (err == nil || err == io.EOF):
		return nil
	case err == io.EOF || err == nil:
		return errShort
	}
	return err
}
