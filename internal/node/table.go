package node

import (
	"context"
	"slices"
	"time"

	"dos/chunk"
	"dos/chunk/repair"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/namespace"
)

// table is the stripe table as repair sees it.
type table struct{ stripes client.Stripes }

// Stripes leaves dead stripes out: the shards of one may be deleted while its
// row is still there, for as long as a full disk keeps it from being buried, and
// nothing is lost with them.
func (t table) Stripes(ctx context.Context, after chunk.StripeID, limit int) ([]chunk.Stripe, bool, error) {
	for {
		reply, err := t.stripes.Stripes(ctx, after, limit, chunk.Code{})
		if err != nil {
			return nil, false, err
		}
		alive := slices.DeleteFunc(reply.Stripes, func(s namespace.StripeInfo) bool { return s.Live == 0 })
		if len(alive) > 0 || !reply.More {
			return stripesOf(alive), reply.More, nil
		}
		after = reply.Next
	}
}

func (t table) Move(ctx context.Context, moves []repair.Move) error {
	list := make([]namespace.Move, len(moves))
	for i, m := range moves {
		list[i] = namespace.Move(m)
	}
	_, err := t.stripes.Move(ctx, list...)
	return err
}

func (t table) Dead(ctx context.Context, before time.Time, limit int) ([]chunk.Stripe, error) {
	list, _, err := t.stripes.Dead(ctx, meta.At(before), limit)
	return stripesOf(list), err
}

func (t table) Bury(ctx context.Context, ids []chunk.StripeID) error {
	return t.stripes.Bury(ctx, ids...)
}

func (t table) Unnamed(ctx context.Context, ids []chunk.StripeID) ([]chunk.StripeID, error) {
	return t.stripes.Unnamed(ctx, ids...)
}

func stripesOf(rows []namespace.StripeInfo) []chunk.Stripe {
	list := make([]chunk.Stripe, len(rows))
	for i, r := range rows {
		list[i] = r.Stripe
	}
	return list
}
