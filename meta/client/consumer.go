package client

import (
	"context"
	"errors"

	"dos/meta"
	"dos/meta/queue"
)

// A Consumer takes messages of one group for one reader. Its methods may not be
// called concurrently.
type Consumer struct {
	stay Stay
	take queue.Take

	place  uint64 // that it waits at; 0: none
	queue  uint64 // the queue's number
	waitIn meta.SessionID
}

// NewConsumer returns a Consumer. who says for people what it is.
func NewConsumer(s Stay, name, group, who string) *Consumer {
	return &Consumer{stay: s, take: queue.Take{Name: name, Group: group, Consumer: who[:min(len(who), queue.TextMax)]}}
}

// Try settles what is to be settled and takes up to max messages in the same
// command. If there are none it has none.
func (c *Consumer) Try(ctx context.Context, max int, settle ...queue.Settle) (queue.Taken, error) {
	return c.send(ctx, max, false, settle)
}

func (c *Consumer) send(ctx context.Context, max int, wait bool, settle []queue.Settle) (out queue.Taken, err error) {
	req := c.take
	req.Max, req.Wait, req.Settle = max, wait, settle
	err = c.stay.Call(ctx, queue.OpTake, req, &out)
	return out, err
}

// Take is Try that waits for messages until ctx ends; only the waiting looks at ctx,
// so that nothing is taken by who does not hear of it. A wait that has ended so
// keeps its place: the next Take goes on there, and Close gives it up.
func (c *Consumer) Take(ctx context.Context, max int, settle ...queue.Settle) (queue.Taken, error) {
	stale := 0
	if c.place != 0 && c.waitIn != c.stay.Session() {
		c.place = 0 // it went with its session
	}
	if c.place == 0 {
		c.waitIn = c.stay.Session()
		out, err := c.send(context.WithoutCancel(ctx), max, true, settle)
		if err != nil || out.Place == 0 {
			return out, err
		}
		c.place, c.queue, stale = out.Place, out.Queue, out.Stale
	} else if len(settle) > 0 {
		var err error
		if stale, err = (Queues{c.stay}).Settle(context.WithoutCancel(ctx), settle...); err != nil {
			return queue.Taken{}, err
		}
	}
	for {
		if err := context.Cause(ctx); err != nil {
			return queue.Taken{Stale: stale}, err
		}
		var now queue.Waiting
		err := c.stay.Call(ctx, queue.OpAwait, queue.Await{Session: c.waitIn, Queue: c.queue, Place: c.place}, &now)
		switch {
		case err == nil && now.Still:
		case ctx.Err() != nil: // it may be granted, and is found by who comes back
			return queue.Taken{Stale: stale}, context.Cause(ctx)
		case errors.Is(err, meta.NotExist): // a queue in memory was lost with all places, and began anew
			c.place = 0
			out, err := c.Take(ctx, max)
			out.Stale += stale
			return out, err
		default:
			c.place = 0
			now.Taken.Stale = stale
			return now.Taken, err
		}
	}
}

// Close gives up the place of a Take that was interrupted.
func (c *Consumer) Close(ctx context.Context) error {
	if c.place == 0 {
		return nil
	}
	err := c.stay.Call(ctx, queue.OpLeave, queue.Leave{Name: c.take.Name, Place: c.place}, nil)
	c.place = 0
	return err
}
