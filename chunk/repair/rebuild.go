package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dos/chunk"
)

// lineMax bounds the lines about lost stripes, and those about stripes that
// could not be repaired, for each comparison.
const lineMax = 10

// work rebuilds one stripe after the other.
func (r *Repairer) work(ctx context.Context) error {
	for {
		it, err := r.queue.take(ctx)
		if err != nil {
			return nil
		}
		r.begin()
		r.repair(ctx, it)
		r.queue.finish(it)
		r.end()
		r.noteFull()
	}
}

// repair looks at a stripe again, rebuilds and moves what can be, and looks once
// more: what is counted as full has been seen on the stores.
func (r *Repairer) repair(ctx context.Context, it *item) {
	row, ok, err := r.row(ctx, it.stripe)
	switch {
	case err != nil:
		r.postpone(ctx, it, fmt.Errorf("stripe table: %w", err))
		return
	case !ok:
		r.finish(it, full, true)
		return
	}
	l := r.inspect(ctx, row, it.suspect)
	if l.rebuildable() || l.leaves() {
		if err := r.rebuild(ctx, it, l); err != nil {
			r.postpone(ctx, it, err)
			return
		}
		switch row, ok, err = r.row(ctx, it.stripe); {
		case err != nil:
			r.postpone(ctx, it, fmt.Errorf("stripe table: %w", err))
			return
		case !ok:
			r.finish(it, full, true)
			return
		}
		l = r.inspect(ctx, row, it.suspect)
	}
	class := classOf(row.Code, len(row.Stores)-l.count(present))
	if class == full && len(it.extras) > 0 {
		r.dropExtras(ctx, row, it.extras)
	}
	if class == lost {
		r.logLost(l)
	}
	if l.count(unknown) > 0 || l.rebuildable() {
		r.postpone(ctx, it, fmt.Errorf("%v", l))
		return
	}
	r.finish(it, class, false)
}

// postpone leaves an item to a later comparison.
func (r *Repairer) postpone(ctx context.Context, it *item, err error) {
	if ctx.Err() != nil {
		return
	}
	if r.mayLog() {
		slog.Warn("repair: stripe could not be repaired now", "stripe", fmt.Sprintf("%016x", uint64(it.stripe)), "err", err)
	}
	r.queue.again(it.calm)
}

// row reads one row of the table.
func (r *Repairer) row(ctx context.Context, id chunk.StripeID) (chunk.Stripe, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	list, _, err := r.config.Table.Stripes(ctx, id-1, 1)
	if err != nil || len(list) == 0 || list[0].ID != id {
		return chunk.Stripe{}, false, err
	}
	s := list[0]
	if len(s.Stores) != s.Code.Shards() {
		return s, false, fmt.Errorf("%016x has %d stores for code %v", uint64(s.ID), len(s.Stores), s.Code)
	}
	return s, true, nil
}

// rebuild computes the shards that are lacking, reads those that are to leave,
// puts all of them, and has the table name them where they are.
func (r *Repairer) rebuild(ctx context.Context, it *item, l *look) error {
	n, todo := len(l.states), l.count(missing)+l.count(moving)
	for _, leaves := range l.leave {
		if leaves {
			todo++
		}
	}
	if err := r.rate.wait(ctx, l.size*int64(todo)); err != nil {
		return err
	}
	have, dst := make([][]byte, n), make([][]byte, n)
	held := false // by a store that does not let go: the buffers are left to it
	defer func() {
		for i := range n {
			if !held {
				r.coder.Free(have[i])
				r.coder.Free(dst[i])
			}
		}
	}()
	if err := r.read(ctx, l, have); err != nil {
		return err
	}
	if l.lacks() { // read may have found more that are missing
		for i, s := range l.states {
			if s == missing || s == moving {
				dst[i] = r.coder.Buffer(int(l.size))
			}
		}
		if err := r.coder.Reconstruct(l.row.Code, have, dst); err != nil {
			return err
		}
	}

	begun := time.Now()
	var mu sync.Mutex // guards what follows, and l.to
	var moves []Move
	var errs []error
	var wg sync.WaitGroup
	for i, s := range l.states {
		id := chunk.ID{Stripe: l.row.ID, Index: uint8(i)}
		leaves := s == present && l.leave[i] && have[i] != nil
		b := dst[i]
		if leaves {
			b = have[i]
		}
		if b == nil {
			continue
		}
		wg.Go(func() {
			var to chunk.StoreID
			var err error
			if s == missing {
				err = r.home(ctx, l, id, b)
			} else {
				to, err = r.elsewhere(ctx, l, &mu, id, b)
			}
			mu.Lock()
			defer mu.Unlock()
			held = held || errors.Is(err, errStuck)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("shard %v: %w", id, err))
				return
			case to != 0:
				moves = append(moves, Move{Stripe: l.row.ID, Index: id.Index, From: l.row.Stores[i], To: to})
			}
			r.rebuilt(l.size)
		})
	}
	wg.Wait()
	if err := r.move(ctx, moves, begun); err != nil {
		return errors.Join(append(errs, err)...)
	}
	r.moved(it, moves, l.size)
	return errors.Join(errs...)
}

// home puts a shard back where the table says that it is.
func (r *Repairer) home(ctx context.Context, l *look, id chunk.ID, b []byte) error {
	return r.ask(ctx, l.row.Stores[id.Index], r.config.Slow, func(ctx context.Context, s chunk.Store) error {
		if l.wrong[id.Index] { // not what the table says, whatever it is
			if err := s.Delete(ctx, id); err != nil {
				return err
			}
		}
		return s.Put(ctx, id, b)
	})
}

// elsewhere puts a shard on the first of the places left that takes it. mu
// guards the places.
func (r *Repairer) elsewhere(ctx context.Context, l *look, mu *sync.Mutex, id chunk.ID, b []byte) (chunk.StoreID, error) {
	onlyRegular := l.leave[id.Index] && !r.isLeaving(l.row.Stores[id.Index])
	errs := []error{errors.New("no other store took it")}
	for {
		mu.Lock()
		to := l.to.next(onlyRegular)
		mu.Unlock()
		if to == 0 {
			return 0, errors.Join(errs...)
		}
		err := r.ask(ctx, to, r.config.Slow, func(ctx context.Context, s chunk.Store) error {
			err := s.Put(ctx, id, b)
			if !errors.Is(err, chunk.ErrExist) {
				return err
			}
			// Left by a write that went elsewhere, unless somebody was faster.
			if now, ok, err := r.row(ctx, id.Stripe); err != nil || !ok || now.Stores[id.Index] == to {
				return errors.Join(chunk.ErrExist, err)
			}
			if err := s.Delete(ctx, id); err != nil {
				return err
			}
			return s.Put(ctx, id, b)
		})
		if err == nil {
			return to, nil
		}
		errs = append(errs, fmt.Errorf("store %d: %w", to, err))
	}
}

// move has the table name shards where they were put, if that was just now.
func (r *Repairer) move(ctx context.Context, moves []Move, begun time.Time) error {
	if len(moves) == 0 {
		return nil
	}
	left := settle/2 - time.Since(begun)
	if left <= 0 {
		return fmt.Errorf("move: %w", errSlow)
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if err := r.config.Table.Move(ctx, moves); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	return nil
}

// dropExtras deletes shards from stores where the table has none. The stripe
// was full without them as it is in row.
func (r *Repairer) dropExtras(ctx context.Context, row chunk.Stripe, extras []extra) {
	now, ok, err := r.row(ctx, row.ID)
	if err != nil || ok && !slices.Equal(now.Stores, row.Stores) {
		return // the next comparison sees to it
	}
	shards := make(map[chunk.StoreID][]chunk.ID)
	for _, e := range extras {
		if i := int(e.id.Index); i < len(row.Stores) && row.Stores[i] == e.store {
			continue // moved there meanwhile
		}
		shards[e.store] = append(shards[e.store], e.id)
	}
	r.deleteAll(ctx, shards, func(id chunk.StoreID, err error) {
		if err == nil {
			r.collected(int64(len(shards[id])), 0)
		}
	})
}

// mayLog reports whether there may be one more line about a stripe.
func (r *Repairer) mayLog() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines++
	return r.lines <= lineMax
}

func (r *Repairer) logLost(l *look) {
	if r.mayLog() {
		slog.Error("repair: stripe is lost unless stores come back", "stripe", fmt.Sprintf("%016x", uint64(l.row.ID)), "code", l.row.Code.String(), "found", l.String())
	}
}
