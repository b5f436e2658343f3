package repair

import (
	"slices"

	"dos/chunk"
)

// regular lists the members of a stripe's group but for its spares.
func (r *Repairer) regular(id chunk.StripeID) []chunk.StoreID {
	members := r.config.Cluster.Group(id).Members
	return members[:min(len(members), r.config.Cluster.Code().Shards())]
}

// places lists where a shard of a stripe may be moved to: members of its group
// that live and have none of it, those that are slow last; regular ones and spares.
func (r *Repairer) places(row chunk.Stripe) (regular, spares []chunk.StoreID) {
	members := r.config.Cluster.Group(row.ID).Members
	first := len(r.regular(row.ID))
	for i, id := range members {
		_, live := r.config.Cluster.Store(id)
		switch {
		case !live || r.isLeaving(id) || slices.Contains(row.Stores, id) || slices.Contains(members[:i], id):
		case i < first:
			regular = append(regular, id)
		default:
			spares = append(spares, id)
		}
	}
	if n := len(regular); n > 1 { // whole copies have a choice: not all to the first
		at := int(uint64(row.ID) / chunk.Groups % uint64(n))
		regular = slices.Concat(regular[at:], regular[:at])
	}
	slow := func(a, b chunk.StoreID) int {
		switch sa, sb := r.patience.isSlow(a), r.patience.isSlow(b); {
		case sa == sb:
			return 0
		case sa:
			return 1
		}
		return -1
	}
	slices.SortStableFunc(regular, slow)
	slices.SortStableFunc(spares, slow)
	return regular, spares
}

// How pressing it is to move shards that are there.
const (
	leaves    = iota // a store that is leaving has one
	misplaced        // one is not on a regular member of its group
)

// toMove reports whether shards of a stripe are to be moved from where they are
// found, and how pressing that is.
func (r *Repairer) toMove(row chunk.Stripe, found uint32) (how int, any bool) {
	members := r.regular(row.ID)
	for i, id := range row.Stores {
		switch {
		case found>>i&1 == 0:
		case r.isLeaving(id):
			how, any = leaves, true
		case !any && !slices.Contains(members, id):
			how, any = misplaced, true
		}
	}
	if !any {
		return 0, false
	}
	regular, spares := r.places(row)
	return how, len(regular) > 0 || how == leaves && len(spares) > 0
}

// A choice hands out the places of one stripe, each once.
type choice struct{ regular, spares []chunk.StoreID }

// next takes the next place; one that is better than a spare if only a regular
// member is. It is zero when there is none.
func (c *choice) next(onlyRegular bool) (id chunk.StoreID) {
	switch {
	case len(c.regular) > 0:
		id, c.regular = c.regular[0], c.regular[1:]
	case len(c.spares) > 0 && !onlyRegular:
		id, c.spares = c.spares[0], c.spares[1:]
	}
	return id
}
