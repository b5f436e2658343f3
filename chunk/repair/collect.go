package repair

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dos/chunk"
)

const (
	// buryBatch is how many dead stripes are deleted at once.
	buryBatch = 256
	// collectEvery is how often the collector looks for dead stripes.
	collectEvery = 5 * time.Second
	// pressed is the grace of dead stripes while a store is nearly full: long
	// enough for a read that has begun.
	pressed = 5 * time.Second
	// lowShare is the share of a store's capacity, one in so many, below which
	// free space counts as nearly full.
	lowShare = 20
)

// collect deletes stripes that no extent has named for the grace period.
func (r *Repairer) collect(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		grace := r.config.DeadGrace
		if grace > pressed && r.nearlyFull(ctx) {
			grace = pressed
		}
		// When a stripe died is by the clock of whoever was in charge then, which
		// may be minutes behind ours.
		if time.Since(r.begun) < grace {
			continue
		}
		for {
			n, err := r.bury(ctx, time.Now().Add(-grace))
			if err != nil && ctx.Err() == nil {
				slog.Warn("repair: dead stripes could not be collected", "err", err)
			}
			if err != nil || n < buryBatch {
				break
			}
		}
	}
}

// bury deletes the shards of a batch of dead stripes and then their rows. A
// store that is away or fails keeps shards without a row, which the comparison
// deletes when it is back.
func (r *Repairer) bury(ctx context.Context, before time.Time) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	dead, err := r.config.Table.Dead(ctx, before, buryBatch)
	if err != nil || len(dead) == 0 {
		return 0, err
	}
	ids := make([]chunk.StripeID, len(dead))
	shards := make(map[chunk.StoreID][]chunk.ID)
	for i, s := range dead {
		ids[i] = s.ID
		// A write that was hedged may have left any shard on any store of the group.
		stores := slices.Concat(s.Stores, r.config.Cluster.Group(s.ID).Members)
		slices.Sort(stores)
		for _, store := range slices.Compact(stores) {
			for index := range s.Code.Shards() {
				shards[store] = append(shards[store], chunk.ID{Stripe: s.ID, Index: uint8(index)})
			}
		}
	}
	r.deleteAll(ctx, shards, func(id chunk.StoreID, err error) {
		if err != nil && !errors.Is(err, errAway) {
			slog.Warn("repair: delete of dead shards failed", "store", id, "err", err)
			r.queue.again(true)
		}
	})
	if err := r.config.Table.Bury(ctx, ids); err != nil {
		return 0, err
	}
	r.collected(0, int64(len(ids)))
	return len(ids), nil
}

// deleteAll deletes shards from several stores at the same time, and says what
// became of each. There may be many, so a store has twice the time of a call,
// which is less than settle still.
func (r *Repairer) deleteAll(ctx context.Context, shards map[chunk.StoreID][]chunk.ID, done func(chunk.StoreID, error)) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for id, list := range shards {
		wg.Go(func() {
			err := r.ask(ctx, id, 2*r.config.Slow, func(ctx context.Context, s chunk.Store) error {
				return s.Delete(ctx, list...)
			})
			mu.Lock()
			defer mu.Unlock()
			done(id, err)
		})
	}
	wg.Wait()
}

// nearlyFull reports whether some live store is short of space.
func (r *Repairer) nearlyFull(ctx context.Context) bool {
	var low atomic.Bool
	var wg sync.WaitGroup
	for _, id := range r.config.Cluster.Stores() {
		if _, live := r.config.Cluster.Store(id); !live {
			continue
		}
		wg.Go(func() {
			var u chunk.Usage
			err := r.ask(ctx, id, r.glance(id), func(ctx context.Context, s chunk.Store) (err error) {
				u, err = s.Usage(ctx)
				return err
			})
			if err == nil && u.Free < u.Capacity/lowShare {
				low.Store(true)
			}
		})
	}
	wg.Wait()
	return low.Load()
}
