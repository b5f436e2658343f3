package repair

import (
	"context"
	"sync"

	"dos/chunk"
)

// queueMax bounds the stripes that wait to be rebuilt, some 10 MiB. What does
// not fit is found again by the next comparison.
const queueMax = 1 << 16

// An item is a stripe that may lack shards.
type item struct {
	stripe  chunk.StripeID
	left    int    // shards that can still be lost; negative: it is lost already
	urgent  bool   // a reader met the damage
	suspect uint32 // bit i: shard i may be there but corrupt
	extras  []extra

	pass  uint64 // the comparison that counted it, 0 for none
	class class  // as what
}

// An extra is a shard on a store where the table has none.
type extra struct {
	store chunk.StoreID
	id    chunk.ID
}

// lostLevel is where stripes wait that have lost too much: last, for they can
// only be looked at again.
const lostLevel = chunk.MaxShards

// level orders items: less redundancy first, urgent ones before others.
func (i *item) level() int {
	switch {
	case i.left < 0:
		return 2*lostLevel + 1
	case i.urgent:
		return 2 * i.left
	}
	return 2*i.left + 1
}

// A queue holds items by level. A stripe is in it once, and worked on by one.
type queue struct {
	ready chan struct{} // one token while there is something to take

	mu      sync.Mutex
	levels  [2*lostLevel + 2][]*item // guarded by mu
	waiting map[chunk.StripeID]*item // all in levels; guarded by mu
	working map[chunk.StripeID]*item // taken and not done; guarded by mu
	after   map[chunk.StripeID]*item // to be added when work on the stripe is done; guarded by mu
	dropped int                      // what did not fit or could not be done, but for lost stripes, since the last clear; guarded by mu
}

func (q *queue) init() {
	q.ready = make(chan struct{}, 1)
	q.waiting = make(map[chunk.StripeID]*item)
	q.working = make(map[chunk.StripeID]*item)
	q.after = make(map[chunk.StripeID]*item)
}

// add puts an item in, in the place of what is known of its stripe. When the
// queue is full the item with the most redundancy left is dropped, perhaps
// this one: then add returns false.
func (q *queue) add(it *item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.addLocked(it)
}

func (q *queue) addLocked(it *item) bool {
	if q.working[it.stripe] != nil {
		if old := q.after[it.stripe]; old != nil {
			it = merge(old, it)
		}
		q.after[it.stripe] = it
		return true
	}
	if old := q.waiting[it.stripe]; old != nil {
		it = merge(old, it)
		if it.level() == old.level() {
			*old = *it
			return true
		}
		q.remove(old)
	} else if len(q.waiting) >= queueMax && !q.makeRoom(it) {
		return false
	}
	q.waiting[it.stripe] = it
	q.levels[it.level()] = append(q.levels[it.level()], it)
	q.token()
	return true
}

// merge joins what is known of one stripe; the later comparison counted it.
func merge(old, it *item) *item {
	m := *it
	m.left = min(old.left, it.left)
	if it.pass != 0 { // the lists have just been read
		m.left = it.left
	} else {
		m.pass, m.class, m.extras = old.pass, old.class, old.extras
	}
	m.urgent = old.urgent || it.urgent
	m.suspect = old.suspect | it.suspect
	return &m
}

// remove takes a waiting item out. It stays in its level, marked by its
// absence from waiting.
func (q *queue) remove(it *item) {
	delete(q.waiting, it.stripe)
}

// makeRoom drops an item that is less urgent than it.
func (q *queue) makeRoom(it *item) bool {
	for level := len(q.levels) - 1; level > it.level(); level-- {
		list := q.levels[level]
		for len(list) > 0 {
			last := list[len(list)-1]
			list = list[:len(list)-1]
			q.levels[level] = list
			if q.waiting[last.stripe] == last {
				q.remove(last)
				q.drop(last)
				return true
			}
		}
	}
	q.drop(it)
	return false
}

func (q *queue) drop(it *item) {
	if it.left >= 0 {
		q.dropped++
	}
}

// take returns the item with the least redundancy left, when there is one.
func (q *queue) take(ctx context.Context) (*item, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.ready:
		}
		q.mu.Lock()
		it := q.first()
		if it != nil {
			q.working[it.stripe] = it
		}
		if len(q.waiting) > 0 {
			q.token()
		}
		q.mu.Unlock()
		if it != nil {
			return it, nil
		}
	}
}

func (q *queue) first() *item {
	for level, list := range q.levels {
		for len(list) > 0 {
			it := list[0]
			list[0] = nil
			list = list[1:]
			q.levels[level] = list
			if q.waiting[it.stripe] == it {
				q.remove(it)
				return it
			}
		}
	}
	return nil
}

// finish says that work on an item is over.
func (q *queue) finish(it *item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.working, it.stripe)
	if next := q.after[it.stripe]; next != nil {
		delete(q.after, it.stripe)
		q.addLocked(next)
	}
}

func (q *queue) token() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// busy counts the stripes that wait or are worked on, and those that did not fit.
func (q *queue) busy() (items, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) + len(q.working) + len(q.after), q.dropped
}

// again asks for another comparison once the queue is empty.
func (q *queue) again() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped++
}

// clearDropped forgets what did not fit: a new comparison finds it.
func (q *queue) clearDropped() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped = 0
}
