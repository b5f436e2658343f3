package client

import (
	"context"
	"errors"
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/queue"
)

// Append sends messages with a key, in one command. It does not wait for room:
// meta.WouldWait.
func (t *Taker) Append(ctx context.Context, name, key string, bodies ...[]byte) (out queue.Pushed, err error) {
	ctx = context.WithoutCancel(ctx) // or nobody would know whether it was sent
	req := queue.Push{Name: name, Messages: make([]queue.Message, len(bodies))}
	var begun []chunk.StripeID
	defer func() {
		for _, id := range begun {
			t.data.End(id)
		}
	}()
	for i, body := range bodies {
		m := &req.Messages[i]
		m.Key, m.Body, m.Whole = key, body, true
		if len(body) > queue.BodyMax {
			m.Body = nil
			var ids []chunk.StripeID
			ids, m.Stripes, err = t.write(ctx, body)
			if begun = append(begun, ids...); err != nil {
				return out, err
			}
		}
	}
	if out, err = t.push(ctx, req); err == nil && len(out.IDs) == 0 {
		err = fmt.Errorf("queue %q is full: %w", name, meta.WouldWait)
	}
	return out, err
}

// Pop takes up to max messages of the default group for good: they are acknowledged
// when it returns, and whoever dies with them has lost them. With wait it waits for
// one until ctx ends, else it has none if there are none. If keep, which is optional,
// refuses them they go back as if they had not been taken.
func (t *Taker) Pop(ctx context.Context, name, who string, max int, wait bool, keep func([]queue.Got) error) ([]queue.Got, error) {
	c := NewConsumer(t.stay, name, "", who)
	sure := context.WithoutCancel(ctx)
	for {
		out, err := t.claim(ctx, c, max, wait)
		if err != nil || len(out.Messages) == 0 {
			return nil, err
		}
		settle := queue.Settle{Name: name, Claim: out.Claim, What: queue.Ack}
		for i := range out.Messages {
			if err = t.Load(sure, &out.Messages[i]); err != nil {
				break
			}
		}
		if err == nil && keep != nil {
			err = keep(out.Messages)
		}
		if err != nil {
			settle.What = queue.Return
			_, e := t.Settle(sure, settle)
			return nil, errors.Join(err, e)
		}
		stale, err := t.Settle(sure, settle)
		if err != nil || stale == 0 {
			return out.Messages, err
		}
		// They are another's by now: nobody was told of them here.
	}
}

// claim claims messages for a session that was there when they came.
func (t *Taker) claim(ctx context.Context, c *Consumer, max int, wait bool) (queue.Taken, error) {
	sure := context.WithoutCancel(ctx)
	if !wait {
		return c.Try(sure, max)
	}
	out, err := c.Take(ctx, max)
	if err != nil {
		err = errors.Join(err, c.Close(sure))
	}
	return out, err
}
