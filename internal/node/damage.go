package node

import (
	"sync"
	"time"

	"dos/chunk"
	"dos/procfs/nodes"
)

const (
	// damageKept is how long a machine tells of a damaged shard: whoever is in
	// charge of repair asks every second, and it may just be changing.
	damageKept = time.Minute
	// damageMax bounds the shards that it tells of at once. With more of them the
	// comparison of lists is what mends the store.
	damageMax = 1024
)

// damage is the shards of this machine that were found damaged of late. The
// zero value has none. Its methods may be called concurrently.
type damage struct {
	mu    sync.Mutex
	found map[chunk.ID]time.Time // guarded by mu
}

// add notes a damaged shard.
func (d *damage) add(id chunk.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.found == nil {
		d.found = make(map[chunk.ID]time.Time)
	}
	if len(d.found) < damageMax {
		d.found[id] = time.Now()
	}
}

// list is what there is to tell.
func (d *damage) list() []nodes.Shard {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []nodes.Shard
	for id, at := range d.found {
		if time.Since(at) > damageKept {
			delete(d.found, id)
			continue
		}
		list = append(list, nodes.Shard{Stripe: uint64(id.Stripe), Index: id.Index})
	}
	return list
}
