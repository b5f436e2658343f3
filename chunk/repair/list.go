package repair

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dos/chunk"
)

const (
	// listBatch is how many entries of a list are handed over at once, and
	// listAhead how many batches a list is read ahead.
	listBatch = 256
	listAhead = 4
	// reopenMax bounds how often a list that breaks is taken up again.
	reopenMax = 3
)

// A cursor goes through what one store lists. The list is read ahead in a
// goroutine of its own, so that the stores are read side by side. One that
// breaks in the middle, as connections do, is taken up where it broke.
type cursor struct {
	r     *Repairer
	store chunk.StoreID
	info  chunk.Info
	ok    bool // info is valid
	begun bool

	end     context.CancelFunc
	batches <-chan batch
	rest    []chunk.Info // of the last batch
	err     error        // after rest
	over    bool         // after rest nothing follows
	reopens int
}

type batch struct {
	infos []chunk.Info
	err   error
	last  bool
}

func (r *Repairer) open(ctx context.Context, id chunk.StoreID) *cursor {
	c := &cursor{r: r, store: id, end: func() {}, over: true, err: errAway}
	c.list(ctx, chunk.ID{})
	return c
}

// list begins to read the list from an ID, if the store lives.
func (c *cursor) list(ctx context.Context, from chunk.ID) {
	s, live := c.r.config.Cluster.Store(c.store)
	if !live {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	batches := make(chan batch, listAhead)
	c.end, c.batches, c.over, c.err = cancel, batches, false, nil
	c.r.patience.calls.Go(func() {
		var b batch
		send := func() bool {
			select {
			case batches <- b:
				b.infos = nil
				return true
			case <-ctx.Done():
				return false
			}
		}
		for info, err := range s.List(ctx, from) {
			if err != nil {
				b.err = err
				break
			}
			if b.infos = append(b.infos, info); len(b.infos) == listBatch && !send() {
				return
			}
		}
		b.last = true
		send()
	})
}

// next moves on. At the end of the list ok is false and the error nil.
func (c *cursor) next(ctx context.Context) error {
	c.begun = true
	for len(c.rest) == 0 {
		if !c.over {
			c.wait(ctx)
			continue
		}
		c.ok = false
		if c.err == nil || ctx.Err() != nil || c.reopens == reopenMax {
			return c.err
		}
		if _, live := c.r.config.Cluster.Store(c.store); !live || c.r.patience.isSilent(c.store) {
			return c.err
		}
		c.reopens++
		c.end()
		c.list(ctx, after(c.info.ID))
	}
	last := c.info
	c.info, c.ok, c.rest = c.rest[0], true, c.rest[1:]
	if last.ID.Stripe != 0 && c.info.ID.Compare(last.ID) <= 0 {
		c.ok, c.rest, c.over = false, nil, true
		c.err, c.reopens = fmt.Errorf("%v follows %v", c.info.ID, last.ID), reopenMax
		return c.err
	}
	return nil
}

// wait waits for the next batch, but no longer than for any call.
func (c *cursor) wait(ctx context.Context) {
	stall := time.NewTimer(c.r.config.Slow)
	defer stall.Stop()
	select {
	case b := <-c.batches:
		c.rest, c.err, c.over = b.infos, b.err, b.last
	case <-stall.C:
		c.err, c.over = errSlow, true
		c.r.patience.took(c.store, c.r.config.Slow, true)
	case <-ctx.Done():
		c.err, c.over = ctx.Err(), true
	}
	if errors.Is(c.err, context.DeadlineExceeded) && ctx.Err() == nil {
		c.err = errSlow
	}
}

func (c *cursor) close() { c.end() }

// after returns the ID that follows.
func after(id chunk.ID) chunk.ID {
	if id.Index == 1<<8-1 {
		return chunk.ID{Stripe: id.Stripe + 1}
	}
	return chunk.ID{Stripe: id.Stripe, Index: id.Index + 1}
}
