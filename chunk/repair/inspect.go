package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dos/chunk"
)

// The states of a shard.
type state int

const (
	present state = iota
	missing       // its store lives and does not have it, or has it corrupt
	moving        // it is to be rebuilt elsewhere: its store is given up
	absent        // its store is away, but may come back
	unknown       // its store does not say
)

// A look is what the stores say of one stripe.
type look struct {
	row    chunk.Stripe
	size   int64 // of each shard
	states []state
	wrong  []bool // a missing one is there, but of another size
	leave  []bool // a present one is to be moved elsewhere
	errs   []error
	to     choice // where to
}

func (l *look) count(s state) int {
	n := 0
	for _, x := range l.states {
		if x == s {
			n++
		}
	}
	return n
}

// rebuildable reports whether something is to be rebuilt and can be.
func (l *look) rebuildable() bool {
	return l.count(present) >= int(l.row.Code.K) && l.lacks()
}

// lacks reports whether something is to be rebuilt.
func (l *look) lacks() bool { return l.count(missing)+l.count(moving) > 0 }

// leaves reports whether something is to be moved that is there.
func (l *look) leaves() bool { return slices.Contains(l.leave, true) }

func (l *look) String() string {
	s := fmt.Sprintf("%d of %d shards", l.count(present), len(l.states))
	for i, err := range l.errs {
		if err != nil {
			s += fmt.Sprintf(", shard %d on store %d: %v", i, l.row.Stores[i], err)
		}
	}
	return s
}

// inspect asks all stores of a stripe, at the same time. Suspect shards are
// read, the others looked up.
func (r *Repairer) inspect(ctx context.Context, row chunk.Stripe, suspect uint32) *look {
	n := len(row.Stores)
	l := &look{row: row, size: int64(row.Code.Cell(int(row.Len))),
		states: make([]state, n), wrong: make([]bool, n), leave: make([]bool, n), errs: make([]error, n)}
	var wg sync.WaitGroup
	for i, store := range row.Stores {
		wg.Go(func() {
			limit := r.glance(store)
			if suspect>>i&1 == 1 {
				limit = r.config.Slow
			}
			l.states[i], l.wrong[i], l.errs[i] = r.shard(ctx, store, chunk.ID{Stripe: row.ID, Index: uint8(i)}, l.size, limit, suspect>>i&1 == 1)
		})
	}
	wg.Wait()
	if r.mayMove() {
		r.choose(l)
	}
	return l
}

// shard asks one store for one shard.
func (r *Repairer) shard(ctx context.Context, store chunk.StoreID, id chunk.ID, size int64, limit time.Duration, suspect bool) (st state, wrong bool, err error) {
	var info chunk.Info
	err = r.ask(ctx, store, limit, func(ctx context.Context, s chunk.Store) error {
		found, err := s.Stat(ctx, id)
		if err == nil && found.Size == size && suspect {
			err = verify(ctx, s, found)
		}
		info = found
		return err
	})
	switch {
	case errors.Is(err, errAway):
		return absent, false, err
	case errors.Is(err, chunk.ErrNotExist), errors.Is(err, chunk.ErrCorrupt):
		return missing, false, err
	case err != nil:
		return unknown, false, err
	case info.Size != size:
		return missing, true, fmt.Errorf("%d bytes, want %d", info.Size, size)
	}
	return present, false, nil
}

// choose says which shards are to go elsewhere, as far as there are places: first
// those that are gone with their stores, then those on stores that are leaving,
// then those in the wrong place.
func (r *Repairer) choose(l *look) {
	l.to.regular, l.to.spares = r.places(l.row)
	regular, places := len(l.to.regular), len(l.to.regular)+len(l.to.spares)
	take := func() bool {
		if places == 0 {
			return false
		}
		places--
		regular--
		return true
	}
	for i, store := range l.row.Stores {
		if l.states[i] == absent && r.movable(store) && take() {
			l.states[i] = moving
		}
	}
	for i, store := range l.row.Stores {
		if l.states[i] == missing && r.isLeaving(store) && take() {
			l.states[i] = moving
		}
	}
	for i, store := range l.row.Stores {
		if l.states[i] == present && r.isLeaving(store) && take() {
			l.leave[i] = true
		}
	}
	members := r.regular(l.row.ID)
	for i, store := range l.row.Stores {
		if l.states[i] == present && !l.leave[i] && !slices.Contains(members, store) && regular > 0 && take() {
			l.leave[i] = true
		}
	}
}

// verify reads a whole shard where it lies if the store can, else from here.
func verify(ctx context.Context, s chunk.Store, info chunk.Info) error {
	if v, ok := s.(chunk.Scrubber); ok {
		if err := v.Verify(ctx, info.ID); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	b := make([]byte, chunk.Block*16)
	for off := int64(0); off < info.Size; off += int64(len(b)) {
		b = b[:min(int64(len(b)), info.Size-off)]
		if n, err := s.ReadAt(ctx, info.ID, b, off); n < len(b) {
			return err
		}
	}
	return nil
}
