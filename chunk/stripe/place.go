package stripe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dos/chunk"
)

var (
	errNotLive = errors.New("not live")
	errSlow    = errors.New("no answer in time")
)

// A placement says how a stripe is to be written.
type placement struct {
	code   chunk.Code
	stores []chunk.StoreID // of each shard
	spares []chunk.StoreID // in the order to try them
}

// place chooses the code and the stores of a stripe of n bytes, from the live
// stores of its group that have not failed this write yet.
func (p *Path) place(id chunk.StripeID, n int, failed failures) (placement, error) {
	want := p.config.Cluster.Code()
	members := p.config.Cluster.Group(id).Members
	var first, spare, doubtful []chunk.StoreID
	for i, m := range members {
		if slices.Contains(members[:i], m) || failed[m] != nil {
			continue
		}
		switch _, live := p.config.Cluster.Store(m); {
		case !live:
		case p.doubtful(m):
			doubtful = append(doubtful, m)
		case i < want.Shards():
			first = append(first, m)
		default:
			spare = append(spare, m)
		}
	}
	// Rotate the regular members, by a mix of the ID rather than the ID: the
	// rows of the table may be rotated by the ID already, and two rotations by
	// the same number favour some stores.
	if len(first) > 1 {
		at := int(mix(uint64(id)) % uint64(len(first)))
		first = slices.Concat(first[at:], first[:at])
	}
	order := slices.Concat(first, spare)
	usable := len(order)
	order = append(order, doubtful...)
	if usable < int(want.M)+1 {
		usable = len(order)
	}
	if usable < int(want.M)+1 {
		return placement{}, p.tooFew(id, members, usable, failed)
	}

	code := chunk.Code{K: 1, M: want.M}
	if n > chunk.CopyMax {
		code.K = uint8(min(int(want.K), usable-int(want.M)))
	}
	return placement{code: code, stores: order[:code.Shards()], spares: order[code.Shards():]}, nil
}

// tooFew says why a stripe cannot be written.
func (p *Path) tooFew(id chunk.StripeID, members []chunk.StoreID, usable int, failed failures) error {
	all, full := make(failures), 0
	for _, m := range members {
		switch _, live := p.config.Cluster.Store(m); {
		case failed[m] != nil:
			all[m] = failed[m]
			if errors.Is(failed[m], chunk.ErrFull) {
				full++
			}
		case !live:
			all[m] = errNotLive
		}
	}
	need, kind := int(p.config.Cluster.Code().M)+1, chunk.ErrTooFew
	if usable+full >= need {
		kind = chunk.ErrFull
	}
	return fmt.Errorf("stripe %016x: %d stores of its group are left, %d are needed: %v: %w", uint64(id), usable, need, all, kind)
}

// failures says which stores failed and how.
type failures map[chunk.StoreID]error

func (f failures) String() string {
	if len(f) == 0 {
		return "no store failed"
	}
	ids := make([]chunk.StoreID, 0, len(f))
	for id := range f {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, cmp.Compare)
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "store %d: %v", id, f[id])
	}
	return b.String()
}

// mix spreads the bits of x (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Best is the code that a stripe of n bytes would get now if all live stores
// were in its group, up to the code wanted; K = 0 when none would do.
func (p *Path) Best(n int) chunk.Code {
	want := p.config.Cluster.Code()
	live := 0
	for _, m := range p.config.Cluster.Group(0).Members {
		if _, ok := p.config.Cluster.Store(m); ok && !p.doubtful(m) {
			live++
		}
	}
	switch {
	case live <= int(want.M):
		return chunk.Code{}
	case n <= chunk.CopyMax:
		return chunk.Code{K: 1, M: want.M}
	}
	return chunk.Code{K: uint8(min(int(want.K), live-int(want.M))), M: want.M}
}
