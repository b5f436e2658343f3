package stripe

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"

	"dos/chunk"
)

// ids hands out stripe IDs from ranges that it reserves ahead, and knows which
// are still in use.
type ids struct {
	source IDs
	batch  int
	turn   chan struct{} // holds one token while somebody reserves

	mu     sync.Mutex
	ranges []idRange                 // what is left to hand out, in order; guarded by mu
	end    chunk.StripeID            // of the last range reserved; guarded by mu
	stays  int                       // counts calls of Forget; guarded by mu
	open   idHeap                    // all IDs in begun, and ended ones; guarded by mu
	begun  map[chunk.StripeID]*idSet // guarded by mu
}

type idRange struct{ next, end chunk.StripeID }

// An idSet is an ID that was begun and those that took its place.
type idSet struct{ ids []chunk.StripeID }

func (d *ids) init(source IDs, batch int) {
	d.source, d.batch = source, batch
	d.turn = make(chan struct{}, 1)
	d.begun = make(map[chunk.StripeID]*idSet)
}

// Begin reserves a stripe ID. Until End is called for it the low-water mark
// stays at or below it.
func (p *Path) Begin(ctx context.Context) (chunk.StripeID, error) {
	return p.ids.begin(ctx, new(idSet))
}

// End says that a stripe is named by a committed command or never will be. It
// takes the ID that Begin returned or the one of the stripe that Write returned.
func (p *Path) End(id chunk.StripeID) {
	d := &p.ids
	d.mu.Lock()
	defer d.mu.Unlock()
	if set := d.begun[id]; set != nil {
		for _, id := range set.ids {
			delete(d.begun, id)
		}
	}
}

// Forget gives up the IDs that are reserved and not handed out: the session that
// reserved them is over, and nobody may name them any more.
func (p *Path) Forget() {
	d := &p.ids
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ranges = nil
	d.stays++
}

// Low is the low-water mark: every ID handed out below it has ended, and none
// below it will be handed out. It is zero before the first Begin.
func (p *Path) Low() chunk.StripeID {
	d := &p.ids
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.open) > 0 {
		if d.begun[d.open[0]] != nil {
			return d.open[0]
		}
		heap.Pop(&d.open)
	}
	if len(d.ranges) > 0 {
		return d.ranges[0].next
	}
	return d.end
}

// again returns a fresh ID in the place of one whose stripe could not be
// written: shards of the first attempt may lie about or arrive late, and an ID
// never gets other bytes. Both end together.
func (d *ids) again(ctx context.Context, id chunk.StripeID) (chunk.StripeID, error) {
	d.mu.Lock()
	set := d.begun[id]
	d.mu.Unlock()
	if set == nil {
		return 0, fmt.Errorf("stripe: ID %016x was not begun", uint64(id))
	}
	return d.begin(ctx, set)
}

func (d *ids) begin(ctx context.Context, set *idSet) (chunk.StripeID, error) {
	for {
		id, left := d.take(set)
		if id != 0 {
			if left < d.batch/4 {
				// Ahead of need, so that the others do not wait. That it fails
				// matters only once nothing is left.
				select {
				case d.turn <- struct{}{}:
					_ = d.reserve(ctx, d.batch/4)
					<-d.turn
				default:
				}
			}
			return id, nil
		}
		select {
		case d.turn <- struct{}{}:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		err := d.reserve(ctx, 1)
		<-d.turn
		if err != nil {
			return 0, err
		}
	}
}

// take hands out an ID into set, and says how many are left. It returns zero
// when there is none.
func (d *ids) take(set *idSet) (id chunk.StripeID, left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ranges) == 0 {
		return 0, 0
	}
	r := &d.ranges[0]
	id = r.next
	r.next++
	if r.next == r.end {
		d.ranges = d.ranges[1:]
	}
	set.ids = append(set.ids, id)
	d.begun[id] = set
	heap.Push(&d.open, id)
	return id, d.left()
}

// left counts what can be handed out. Called with mu held.
func (d *ids) left() int {
	n := 0
	for _, r := range d.ranges {
		n += int(r.end - r.next)
	}
	return n
}

// reserve gets a range unless at least enough IDs are left. The caller has the turn.
func (d *ids) reserve(ctx context.Context, enough int) error {
	if d.source == nil {
		return errors.New("stripe: no source of stripe IDs")
	}
	d.mu.Lock()
	left, end, stays := d.left(), d.end, d.stays
	d.mu.Unlock()
	if left >= enough {
		return nil
	}
	first, err := d.source.Reserve(ctx, d.batch)
	if err != nil {
		return fmt.Errorf("stripe: reserve IDs: %w", err)
	}
	if first == 0 || first < end {
		return fmt.Errorf("stripe: reserve IDs: got %d after %d", first, end)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end = first + chunk.StripeID(d.batch)
	if d.stays != stays {
		return nil // reserved by a session that is over
	}
	d.ranges = append(d.ranges, idRange{first, d.end})
	return nil
}

// An idHeap has the lowest ID first.
type idHeap []chunk.StripeID

func (h idHeap) Len() int           { return len(h) }
func (h idHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h idHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *idHeap) Push(x any)        { *h = append(*h, x.(chunk.StripeID)) }
func (h *idHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
