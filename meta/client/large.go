package client

import (
	"context"
	"errors"
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/queue"
)

// Data is where the bodies of large messages are: a stripe.Path whose stripes are of
// the session that sends.
type Data interface {
	// Begin reserves a stripe ID. Every one that is begun is ended.
	Begin(ctx context.Context) (chunk.StripeID, error)
	// Write returns once data, at most chunk.MaxStripe bytes, is synced on its stores.
	Write(ctx context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error)
	// Read fills b from an offset of a stripe on.
	Read(ctx context.Context, s chunk.Stripe, b []byte, off int64) error
	// End says that a stripe is named by now, or that it never will be.
	End(id chunk.StripeID)
}

// errNoData says that large messages are for who has stores.
var errNoData = fmt.Errorf("messages over %d bytes need a mount: %w", queue.BodyMax, meta.Unsupported)

// Put sends one message of up to queue.SizeMax bytes that is no line. It does not wait
// for room: meta.WouldWait.
//
// What is larger than queue.BodyMax is written as stripes first, which the command
// names then. Whoever dies between leaves stripes that nobody names, and that are
// collected.
func (t *Taker) Put(ctx context.Context, name string, data []byte) error {
	ctx = context.WithoutCancel(ctx) // or nobody would know whether it was sent
	m := queue.Message{Body: data, Whole: true}
	if len(data) > queue.BodyMax {
		m.Body = nil
		var begun []chunk.StripeID
		// Also when nobody knows whether the command will be executed: the stripes are
		// not for it to name any more when that is told.
		defer func() {
			for _, id := range begun {
				t.data.End(id)
			}
		}()
		var err error
		if begun, m.Stripes, err = t.write(ctx, data); err != nil {
			return err
		}
	}
	ids, err := t.TryPush(ctx, queue.Push{Name: name, Messages: []queue.Message{m}, Part: true})
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("queue %q is full: %w", name, meta.WouldWait)
	}
	return err
}

// write writes stripes. Those that were begun are to be ended, also after an error.
func (t *Taker) write(ctx context.Context, data []byte) (begun []chunk.StripeID, list []chunk.Stripe, err error) {
	switch {
	case t.data == nil:
		return nil, nil, errNoData
	case len(data) > queue.SizeMax:
		return nil, nil, fmt.Errorf("a message of %d bytes, at most %d: %w", len(data), queue.SizeMax, meta.TooLarge)
	}
	for len(data) > 0 {
		id, err := t.data.Begin(ctx)
		if err != nil {
			return begun, nil, err
		}
		begun = append(begun, id)
		n := min(len(data), chunk.MaxStripe)
		s, err := t.data.Write(ctx, id, data[:n])
		if err != nil {
			return begun, nil, dataError(err)
		}
		list = append(list, s)
		data = data[n:]
	}
	return begun, list, nil
}

// Load reads the body of a message that is in stripes; of others it is there. Shards
// that have moved meanwhile are looked for once more. meta.Lost says that nobody will
// ever read it, meta.Unavailable that somebody may.
func (t *Taker) Load(ctx context.Context, m *queue.Got) error {
	switch {
	case len(m.Parts) == 0:
		return nil
	case t.data == nil:
		return errNoData
	}
	body := make([]byte, m.Size)
	err := t.read(ctx, m.Parts, body)
	if err != nil && ctx.Err() == nil {
		err = t.read(ctx, m.Parts, body)
	}
	if err != nil {
		return fmt.Errorf("message %d: %w", m.Number, err)
	}
	m.Body = body
	return nil
}

func (t *Taker) read(ctx context.Context, ids []chunk.StripeID, b []byte) error {
	list, err := Stripes{t.stay}.Stripe(ctx, ids...)
	if err != nil {
		return err
	}
	at := make(map[chunk.StripeID]chunk.Stripe, len(list))
	for _, s := range list {
		at[s.Stripe.ID] = s.Stripe
	}
	for _, id := range ids {
		s, ok := at[id]
		if !ok { // its message was settled meanwhile
			return meta.NotExist
		}
		if err := t.data.Read(ctx, s, b[:s.Len], 0); err != nil {
			return dataError(err)
		}
		b = b[s.Len:]
	}
	return nil
}

// dataError turns what the stores say into a kind.
func dataError(err error) error {
	switch {
	case errors.Is(err, chunk.ErrFull):
		return fmt.Errorf("%w: %w", meta.NoSpace, err)
	case errors.Is(err, chunk.ErrGone):
		return fmt.Errorf("%w: %w", meta.Lost, err)
	case errors.Is(err, chunk.ErrTooFew), errors.Is(err, chunk.ErrLost), errors.Is(err, chunk.ErrCorrupt), errors.Is(err, chunk.ErrNotExist):
		return fmt.Errorf("%w: %w", meta.Unavailable, err)
	}
	return err
}
