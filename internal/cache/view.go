package cache

import (
	"slices"

	"dos/meta"
	"dos/meta/cache"
)

// A view is a version of the replicated state. It does not change.
type view struct {
	stamp, version uint64
	members        map[meta.SessionID]cache.Member
	rings          []*cache.Ring // oldest first; the last is in force
	buckets        map[uint64]cache.Bucket
	names          map[string]uint64
	weight         int64            // of all members
	late           []meta.SessionID // who may still act by an older map
	unknown        bool             // by one that is not known here
	changed        chan struct{}    // closed when there is another view
}

// newView makes a view of what was read. prev is the one before; nil: there is none.
func newView(o cache.Overview, prev *view, me meta.SessionID) *view {
	v := &view{
		stamp: o.Stamp, version: o.Version, members: make(map[meta.SessionID]cache.Member),
		changed: make(chan struct{}),
	}
	for _, m := range o.Maps {
		v.rings = append(v.rings, m.Ring())
	}
	if len(v.rings) == 0 {
		v.rings = []*cache.Ring{cache.Map{}.Ring()}
	}
	for _, m := range o.Members {
		v.members[m.Session] = m
		v.weight += int64(m.Weight)
		if m.Session != me && m.Known < v.ring().Epoch {
			v.late = append(v.late, m.Session)
			v.unknown = v.unknown || m.Known < v.rings[0].Epoch
		}
	}
	if prev != nil && !o.Whole {
		v.buckets, v.names = prev.buckets, prev.names
		return v
	}
	v.buckets, v.names = make(map[uint64]cache.Bucket), make(map[string]uint64)
	for _, b := range o.Buckets {
		v.buckets[b.ID], v.names[b.Name] = b, b.ID
	}
	return v
}

// ring is the map in force.
func (v *view) ring() *cache.Ring { return v.rings[len(v.rings)-1] }

// known reports whether all members know a version.
func (v *view) known(version uint64) bool {
	for _, m := range v.members {
		if m.Known < version {
			return false
		}
	}
	return true
}

// cleared reports whether nobody else can still answer for what has a hash.
func (v *view) cleared(me meta.SessionID, hash uint64) bool {
	if len(v.late) == 0 {
		return true
	}
	if v.unknown {
		return false
	}
	for _, r := range v.rings[:len(v.rings)-1] {
		if o := r.Owner(hash); o != me && slices.Contains(v.late, o) {
			return false
		}
	}
	return true
}

// keeper returns what says which entries of one view are good in a later one; nil: all
// of those whose buckets there are.
func keeper(prev, next *view, me meta.SessionID) func(bucket uint64, key []byte) bool {
	at := slices.IndexFunc(next.rings, func(r *cache.Ring) bool { return r.Epoch == prev.ring().Epoch })
	if at < 0 {
		return func(uint64, []byte) bool { return false }
	}
	steps := next.rings[at:]
	void := next.members[me].Fresh > prev.version
	if len(steps) == 1 && !void && !slices.ContainsFunc(next.list(), func(b cache.Bucket) bool { return b.Placed > prev.version }) {
		return nil
	}
	return func(bucket uint64, key []byte) bool {
		b, ok := next.buckets[bucket]
		if !ok {
			return false
		}
		hash, n := cache.Hash(bucket, string(key)), b.Settings.Replicas
		void := void || b.Placed > prev.version
		owner := steps[0].Owner(hash)
		for _, r := range steps[1:] {
			then := r.Owner(hash)
			switch {
			case owner == me && then == me: // it stays
			case owner == me, void:
				return false
			case then == me, then == owner && r.Among(me, hash, n): // it has all that the owner had
			default:
				return false
			}
			owner = then
		}
		return owner == me || !void
	}
}

func (v *view) list() (list []cache.Bucket) {
	for _, b := range v.buckets {
		list = append(list, b)
	}
	return list
}
