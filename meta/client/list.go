package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/queue"
	"dos/meta/txn"
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

// Move takes the first message of a queue's default group, as Pop does, and sends its
// bytes to a queue with a key, both or neither, whatever dies meanwhile. Without wait the
// Number of what it returns is 0 if there is none.
func (t *Taker) Move(ctx context.Context, from, to, key, who string, wait bool, keep func([]queue.Got) error) (queue.Got, error) {
	c := NewConsumer(t.stay, from, "", who)
	sure := context.WithoutCancel(ctx)
	for {
		out, err := t.claim(ctx, c, 1, wait)
		if err != nil || len(out.Messages) == 0 {
			return queue.Got{}, err
		}
		m := out.Messages[0]
		if len(m.Parts) > 0 {
			err = fmt.Errorf("a message of over %d bytes is not moved: %w", queue.BodyMax, meta.Unsupported)
		}
		if err == nil && keep != nil {
			err = keep(out.Messages)
		}
		if err == nil {
			steps := []txn.Step{Ack(from, out.Claim, m.Number), Send(to, queue.Message{Key: key, Body: m.Body, Whole: true})}
			err = t.stay.Call(sure, txn.OpCommit, txn.Commit{Steps: steps}, nil)
		}
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, meta.Fenced): // it is another's by now
			continue
		case errors.Is(err, meta.Unavailable), errors.Is(err, meta.TimedOut):
			return queue.Got{}, err // it may be there by now; if not the claim ends
		}
		_, e := t.Settle(sure, queue.Settle{Name: from, Claim: out.Claim, What: queue.Return})
		return queue.Got{}, errors.Join(err, e)
	}
}

// PickMax is how many messages Pick looks at.
const PickMax = 16 << 10

// Pick takes those messages of a queue's default group that choose returns the numbers
// of, for good. It is asked about all there are, in their order, which nobody else gets until then;
// more than PickMax are meta.TooLarge.
func (t *Taker) Pick(ctx context.Context, name, who string, choose func([]queue.Got) []uint64) (int, error) {
	c := NewConsumer(t.stay, name, "", who)
	ctx = context.WithoutCancel(ctx)
	var all []queue.Got
	var claims []queue.Taken
	give := func(err error) (int, error) {
		for _, out := range slices.Backward(claims) { // so that they are in their order again
			_, e := t.Settle(ctx, queue.Settle{Name: name, Claim: out.Claim, What: queue.Return})
			err = errors.Join(err, e)
		}
		return 0, err
	}
	for {
		out, err := t.claim(ctx, c, queue.TakeMax, false)
		if err != nil {
			return give(err)
		}
		if len(out.Messages) == 0 {
			break
		}
		claims = append(claims, out)
		if len(all)+len(out.Messages) > PickMax {
			return give(fmt.Errorf("queue %q has more than %d messages: %w", name, PickMax, meta.TooLarge))
		}
		for i := range out.Messages {
			if err := t.Load(ctx, &out.Messages[i]); err != nil {
				return give(err)
			}
		}
		all = append(all, out.Messages...)
	}
	if len(all) == 0 {
		return 0, nil
	}
	chosen := choose(all)
	slices.Sort(chosen)
	done := 0
	for _, out := range claims {
		var acks []uint64
		for _, m := range out.Messages {
			if _, is := slices.BinarySearch(chosen, m.Number); is {
				acks = append(acks, m.Number)
			}
		}
		if len(acks) == 0 {
			continue
		}
		stale, err := t.Settle(ctx, queue.Settle{Name: name, Claim: out.Claim, Numbers: acks, What: queue.Ack})
		if err != nil {
			_, err = give(err)
			return done, err
		}
		if stale == 0 { // else they are another's by now
			done += len(acks)
		}
	}
	_, err := give(nil)
	return done, err
}
