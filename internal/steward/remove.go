package steward

import (
	"context"
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/members"
	"dos/meta/namespace"
)

// Registry is what Remove needs of the map; client.Members is one.
type Registry interface {
	Map(ctx context.Context, since uint64) (members.Map, error)
	RemoveStore(ctx context.Context, id chunk.StoreID) error
	RemoveNode(ctx context.Context, name string) error
}

// Table is what Remove needs of the stripe table; client.Stripes is one.
type Table interface {
	Stored(ctx context.Context) (map[chunk.StoreID]namespace.Load, error)
}

// Remove makes the cluster forget a machine and its stores: meta.Busy while
// shards that are named are on one of them, or new ones are put there. A writer
// that has an old map may put one more there afterwards; on a store that nobody
// knows it counts as lost, and is rebuilt. Once it is known that the machine can
// go turnOut is called, so that it does not come back in the middle.
func Remove(ctx context.Context, r Registry, t Table, name string, turnOut func(context.Context) error) error {
	now, err := r.Map(ctx, 0)
	if err != nil {
		return err
	}
	known := false
	for _, n := range now.Nodes {
		known = known || n.Name == name
	}
	if !known {
		return fmt.Errorf("machine %q: %w", name, meta.NotExist)
	}
	standing := members.Standings(now.Stores, now.Nodes)
	loads, err := t.Stored(ctx)
	if err != nil {
		return err
	}
	placed := make(map[chunk.StoreID]bool)
	for _, g := range now.Groups {
		for _, id := range g.Members {
			placed[id] = true
		}
	}
	var list []chunk.StoreID
	for _, s := range now.Stores {
		if s.Node != name {
			continue
		}
		list = append(list, s.ID)
		switch n := loads[s.ID].Shards; {
		case standing[s.ID] == members.In:
			return fmt.Errorf("machine %q: store %d is in use with %d shards: drain the machine first: %w", name, s.ID, n, meta.Busy)
		case n > 0:
			return fmt.Errorf("machine %q: store %d is %v and still has %d shards: wait until it has none: %w", name, s.ID, standing[s.ID], n, meta.Busy)
		case placed[s.ID]:
			return fmt.Errorf("machine %q: store %d is still where new shards are put: try again in a moment: %w", name, s.ID, meta.Busy)
		}
	}
	if err := turnOut(ctx); err != nil {
		return err
	}
	for _, id := range list {
		if err := r.RemoveStore(ctx, id); err != nil {
			return err
		}
	}
	return r.RemoveNode(ctx, name)
}
