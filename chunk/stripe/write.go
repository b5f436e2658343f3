package stripe

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"dos/chunk"
	"dos/chunk/erasure"
)

var errTimeout = fmt.Errorf("timed out: %w", context.DeadlineExceeded)

// Write stores data as the stripe id, which Begin returned, and returns once
// any M further losses leave it readable, after power cuts too. It reads data
// until it returns.
//
// When a store fails and no spare can take its shard, the stripe is written
// again to fewer stores, under a fresh ID: the stripe returned may have another
// ID than the one asked for. End of either ends both.
//
// ErrTooFew: fewer than M+1 stores can take it. ErrFull: enough live, too many are full.
func (p *Path) Write(ctx context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error) {
	if len(data) == 0 || len(data) > chunk.MaxStripe {
		return chunk.Stripe{}, fmt.Errorf("stripe: write of %d bytes: want 1 to %d", len(data), chunk.MaxStripe)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Timeout, errTimeout)
	defer cancel()
	failed := make(failures)
	begun := id
	for { // each round but the last adds to failed or waits, so there are few
		changed := p.changed()
		plan, err := p.place(id, len(data), failed)
		if errors.Is(err, chunk.ErrTooFew) && p.wait(ctx, changed) {
			clear(failed)
			continue
		}
		if err != nil {
			return chunk.Stripe{}, err
		}
		s, err := p.attempt(ctx, id, plan, data, failed)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return chunk.Stripe{}, fmt.Errorf("stripe %016x: write: %v: %w", uint64(id), failed, context.Cause(ctx))
		}
		if !errors.Is(err, errAgain) {
			return chunk.Stripe{}, err
		}
		if id, err = p.ids.again(ctx, begun); err != nil {
			return chunk.Stripe{}, err
		}
	}
}

// errAgain asks for another attempt.
var errAgain = errors.New("stripe: too many stores failed")

// An attempt writes the shards of one stripe under one ID.
type attempt struct {
	path   *Path
	stripe chunk.Stripe
	shards *lent
	failed failures

	spares  []chunk.StoreID
	puts    []*put    // all that were begun; a store is used once at most
	results chan *put // room for all
	pending int       // puts whose result has not been taken
	have    int       // indexes that a store holds
}

// A put is one shard on its way to one store.
type put struct {
	index  int
	store  chunk.StoreID
	cancel context.CancelFunc
	err    error // once it is in results
	over   bool  // its result has been taken
}

func (p *Path) attempt(ctx context.Context, id chunk.StripeID, plan placement, data []byte, failed failures) (chunk.Stripe, error) {
	shards, err := p.coder.Encode(plan.code, data)
	if err != nil {
		return chunk.Stripe{}, err
	}
	a := &attempt{
		path: p,
		stripe: chunk.Stripe{ID: id, Len: uint32(len(data)), Code: plan.code,
			Stores: make([]chunk.StoreID, plan.code.Shards())},
		shards:  lend(shards),
		failed:  failed,
		spares:  plan.spares,
		results: make(chan *put, len(plan.stores)+len(plan.spares)),
	}
	defer a.shards.release()
	for i, store := range plan.stores {
		a.put(ctx, i, store)
	}
	ok := a.run(ctx)
	a.settle()
	if !ok {
		a.discard(ctx)
		return chunk.Stripe{}, errAgain
	}
	return a.stripe, nil
}

// run waits until each shard is on a store, or says that it cannot be.
func (a *attempt) run(ctx context.Context) bool {
	slow := time.NewTimer(a.path.config.Slow)
	defer slow.Stop()
	patience := false // the stores that are slow now are all we have
	waited := a.path.config.Slow
	for a.have < len(a.stripe.Stores) {
		select {
		case put := <-a.results:
			if !a.took(ctx, put) {
				return false
			}
		case <-slow.C:
			if waited < a.path.config.GiveUp {
				a.hedge(ctx)
				slow.Reset(a.path.config.GiveUp - waited)
				waited = a.path.config.GiveUp
			} else if !patience {
				if a.dispensable() {
					return false
				}
				patience = true
			}
		case <-ctx.Done():
			for _, put := range a.puts {
				if !put.over {
					a.failed[put.store] = errSlow
				}
			}
			return false
		}
	}
	return true
}

// took deals with a result. It returns false when a shard has nowhere to go.
func (a *attempt) took(ctx context.Context, put *put) bool {
	a.pending--
	put.over = true
	at := &a.stripe.Stores[put.index]
	if put.err == nil {
		a.path.trust(put.store)
		if *at == 0 { // else another store was faster: this copy is garbage
			*at = put.store
			a.have++
			a.cancel(put.index)
		}
		return true
	}
	if *at != 0 {
		return true
	}
	if ctx.Err() == nil {
		a.failed[put.store] = put.err
		a.path.doubt(put.store, afterError)
	}
	for _, other := range a.puts {
		if other.index == put.index && !other.over {
			return true // a hedge is under way
		}
	}
	return a.spare(ctx, put.index)
}

// hedge asks spares to take the shards that are late.
func (a *attempt) hedge(ctx context.Context) {
	for _, put := range a.puts[:len(a.stripe.Stores)] {
		if !put.over && a.stripe.Stores[put.index] == 0 {
			a.path.doubt(put.store, afterSlow)
			a.spare(ctx, put.index)
		}
	}
}

// dispensable reports whether the stripe can be written without the stores
// that are late, and counts them as failed if so. A store that is late when
// all are is better than none.
func (a *attempt) dispensable() bool {
	late := make(failures)
	for id, err := range a.failed {
		late[id] = err
	}
	for _, put := range a.puts {
		if !put.over {
			late[put.store] = errSlow
		}
	}
	if _, err := a.path.place(a.stripe.ID, int(a.stripe.Len), late); err != nil {
		return false
	}
	for id, err := range late {
		a.failed[id] = err
	}
	return true
}

// spare sends shard i to the next spare store, and reports whether there is one.
func (a *attempt) spare(ctx context.Context, i int) bool {
	for len(a.spares) > 0 {
		store := a.spares[0]
		a.spares = a.spares[1:]
		if _, live := a.path.config.Cluster.Store(store); live {
			a.put(ctx, i, store)
			return true
		}
	}
	return false
}

// put sends shard i to a store.
func (a *attempt) put(ctx context.Context, i int, id chunk.StoreID) {
	ctx, cancel := context.WithCancel(ctx)
	put := &put{index: i, store: id, cancel: cancel}
	a.puts = append(a.puts, put)
	a.pending++
	store, live := a.path.config.Cluster.Store(id)
	if !live {
		put.err = errNotLive
		a.results <- put
		return
	}
	shard, cell := chunk.ID{Stripe: a.stripe.ID, Index: uint8(i)}, a.shards.Cells[i]
	a.shards.count.Add(1)
	a.path.wg.Go(func() {
		defer a.shards.release()
		put.err = store.Put(ctx, shard, cell)
		cancel()
		a.results <- put
	})
}

// cancel ends the puts of shard i that are under way.
func (a *attempt) cancel(i int) {
	for _, put := range a.puts {
		if put.index == i && !put.over {
			put.cancel()
		}
	}
}

// settle cancels what is still under way and waits for it, but not for ever:
// a store that ignores the end of the context keeps the call, and is not
// written to until it returns. What such a store reads from then on may be
// other bytes; no stripe names them.
func (a *attempt) settle() {
	for _, put := range a.puts {
		put.cancel()
	}
	if a.pending == 0 {
		return
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for a.pending > 0 {
		select {
		case put := <-a.results:
			a.pending--
			put.over = true
			if put.err != nil && !errors.Is(put.err, context.Canceled) && a.failed[put.store] == nil {
				a.failed[put.store] = put.err // not because we cancelled it
			}
		case <-timer.C:
			a.abandon()
			return
		}
	}
}

// abandon leaves the puts that have not returned to themselves, and marks
// their stores until they do.
func (a *attempt) abandon() {
	for _, put := range a.puts {
		if !put.over {
			a.path.healthOf(put.store).stuck.Add(1)
		}
	}
	n := a.pending
	a.path.wg.Go(func() {
		for range n {
			put := <-a.results
			a.path.healthOf(put.store).stuck.Add(-1)
		}
	})
}

// discard deletes the shards that a failed attempt left, so that a full disk
// does not fill further. It does what it can; the collector finds the rest.
func (a *attempt) discard(ctx context.Context) {
	for _, put := range a.puts {
		if !put.over || put.err != nil {
			continue
		}
		store, live := a.path.config.Cluster.Store(put.store)
		if !live {
			continue
		}
		id := chunk.ID{Stripe: a.stripe.ID, Index: uint8(put.index)}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.path.config.Timeout)
		a.path.wg.Go(func() {
			defer cancel()
			_ = store.Delete(ctx, id)
		})
	}
}

// Discard deletes a stripe that Write returned and that no command names or
// ever will. It does what it can; the collector finds the rest.
func (p *Path) Discard(ctx context.Context, s chunk.Stripe) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Slow, errTimeout)
	defer cancel()
	done := make(chan struct{}, len(s.Stores))
	n := 0
	for i, id := range s.Stores {
		store, live := p.config.Cluster.Store(id)
		if !live {
			continue
		}
		n++
		p.wg.Go(func() {
			_ = store.Delete(ctx, chunk.ID{Stripe: s.ID, Index: uint8(i)})
			done <- struct{}{}
		})
	}
	for range n {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// lent are shards that several calls read; the last one releases them.
type lent struct {
	*erasure.Shards
	count atomic.Int32
}

func lend(s *erasure.Shards) *lent {
	l := &lent{Shards: s}
	l.count.Store(1)
	return l
}

func (l *lent) release() {
	if l.count.Add(-1) == 0 {
		l.Shards.Release()
	}
}
