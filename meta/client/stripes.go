package client

import (
	"context"
	"slices"

	"dos/chunk"
	"dos/meta"
	ns "dos/meta/namespace"
)

// Stripes are the calls of those who care for the stripes behind the files:
// repair, folding and collection.
type Stripes struct{ Caller Caller }

// Stripes lists at most limit stripes after the one given. With short not zero
// only those come that are cut into less, or survive less, than this code promises.
// While the answer says More, ask again after its Next.
func (s Stripes) Stripes(ctx context.Context, after chunk.StripeID, limit int, short chunk.Code) (reply ns.StripesReply, err error) {
	err = s.Caller.Call(ctx, ns.OpStripes, ns.Stripes{After: after, Limit: limit, Short: short}, &reply)
	return reply, err
}

// Stripe describes stripes by ID. Those that do not exist are left out.
func (s Stripes) Stripe(ctx context.Context, ids ...chunk.StripeID) (list []ns.StripeInfo, err error) {
	err = batches(ids, func(ids []chunk.StripeID) error {
		for len(ids) > 0 {
			var reply ns.StripesReply
			if err := s.Caller.Call(ctx, ns.OpStripe, ns.StripeIDs{IDs: ids}, &reply); err != nil {
				return err
			}
			list = append(list, reply.Stripes...)
			at := slices.Index(ids, reply.Next)
			if !reply.More || at < 0 {
				return nil
			}
			ids = ids[at+1:]
		}
		return nil
	})
	return list, err
}

// Move says that shards lie elsewhere now, and returns for each whether it was
// still where the move says.
func (s Stripes) Move(ctx context.Context, moves ...ns.Move) (done []bool, err error) {
	err = batches(moves, func(moves []ns.Move) error {
		var reply ns.Moved
		if err := s.Caller.Call(ctx, ns.OpMove, ns.Moves{Moves: moves}, &reply); err != nil {
			return err
		}
		done = append(done, reply.Done...)
		return nil
	})
	return done, err
}

// Stored counts the shards of living stripes on each store.
func (s Stripes) Stored(ctx context.Context) (map[chunk.StoreID]ns.Load, error) {
	all := make(map[chunk.StoreID]ns.Load)
	after := chunk.StripeID(0)
	for {
		var reply ns.StoredReply
		if err := s.Caller.Call(ctx, ns.OpStored, ns.Stored{After: after}, &reply); err != nil {
			return nil, err
		}
		for _, l := range reply.Loads {
			sum := all[l.Store]
			all[l.Store] = ns.Load{Store: l.Store, Shards: sum.Shards + l.Shards, Bytes: sum.Bytes + l.Bytes}
		}
		if !reply.More {
			return all, nil
		}
		after = reply.Next
	}
}

// Dead lists at most limit stripes that died before a time, the longest dead first.
func (s Stripes) Dead(ctx context.Context, before meta.Time, limit int) (list []ns.StripeInfo, more bool, err error) {
	var reply ns.DeadReply
	err = s.Caller.Call(ctx, ns.OpDead, ns.Dead{Before: before, Limit: limit}, &reply)
	return reply.Stripes, reply.More, err
}

// Bury removes the rows of dead stripes whose shards have been deleted.
func (s Stripes) Bury(ctx context.Context, ids ...chunk.StripeID) error {
	return batches(ids, func(ids []chunk.StripeID) error {
		return s.Caller.Call(ctx, ns.OpBury, ns.StripeIDs{IDs: ids}, nil)
	})
}

// Unnamed returns those of ids that no row names and none ever will.
func (s Stripes) Unnamed(ctx context.Context, ids ...chunk.StripeID) (unnamed []chunk.StripeID, err error) {
	err = batches(ids, func(ids []chunk.StripeID) error {
		var reply ns.StripeIDs
		if err := s.Caller.Call(ctx, ns.OpUnnamed, ns.StripeIDs{IDs: ids}, &reply); err != nil {
			return err
		}
		unnamed = append(unnamed, reply.IDs...)
		return nil
	})
	return unnamed, err
}

// Folds lists at most limit files worth folding, after the inode given.
func (s Stripes) Folds(ctx context.Context, after meta.Ino, limit int) (list []ns.Fold, more bool, err error) {
	var reply ns.FoldsReply
	err = s.Caller.Call(ctx, ns.OpFolds, ns.After{After: after, Limit: limit}, &reply)
	return reply.Folds, reply.More, err
}

// Layout says where a range of a file is stored, whoever has the lease of it.
func (s Stripes) Layout(ctx context.Context, ino meta.Ino, off, size int64) (layout meta.Layout, err error) {
	err = s.Caller.Call(ctx, ns.OpLayout, ns.Layout{Ino: ino, Off: off, Size: size, Stored: true}, &layout)
	return layout, err
}

// Swap replaces extents by others that hold the same bytes.
func (s Stripes) Swap(ctx context.Context, swap meta.Swap) (attr meta.Attr, err error) {
	err = s.Caller.Call(ctx, ns.OpSwap, swap, &attr)
	return attr, err
}

// Purging lists at most limit inodes of the purge queue, after the one given.
func (s Stripes) Purging(ctx context.Context, after meta.Ino, limit int) (list []meta.Ino, more bool, err error) {
	var reply ns.PurgingReply
	err = s.Caller.Call(ctx, ns.OpPurging, ns.After{After: after, Limit: limit}, &reply)
	return reply.Inos, reply.More, err
}

// Purge removes at most limit rows of an inode in the purge queue, and says
// whether there are more.
func (s Stripes) Purge(ctx context.Context, ino meta.Ino, limit int) (more bool, err error) {
	var reply ns.Purged
	err = s.Caller.Call(ctx, ns.OpPurge, ns.Purge{Ino: ino, Limit: limit}, &reply)
	return reply.More, err
}

// Check goes through the whole tree and its stripes and reports what does not fit.
func (s Stripes) Check(ctx context.Context) (reply ns.CheckReply, err error) {
	err = s.Caller.Call(ctx, ns.OpCheck, struct{}{}, &reply)
	return reply, err
}

// batches calls do for at most ns.ListMax things at a time.
func batches[T any](list []T, do func([]T) error) error {
	for part := range slices.Chunk(list, ns.ListMax) {
		if err := do(part); err != nil {
			return err
		}
	}
	return nil
}
