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
	calm    bool // nothing is missing: shards are to be moved, or extras deleted

	pass  uint64 // the comparison that counted it, 0 for none
	class class  // as what
}

// An extra is a shard on a store where the table has none.
type extra struct {
	store chunk.StoreID
	id    chunk.ID
}

// Stripes of which nothing is missing wait behind the others, and behind these
// those that have lost too much, for they can only be looked at again. What is
// calm has as left how pressing it is, from 0.
const (
	calmLevel = 2 * chunk.MaxShards
	lostLevel = calmLevel + 2
)

// level orders items: less redundancy first, urgent ones before others.
func (i *item) level() int {
	switch {
	case i.left < 0:
		return lostLevel
	case i.calm:
		return calmLevel + i.left
	case i.urgent:
		return 2 * i.left
	}
	return 2*i.left + 1
}

// A queue holds items by level. A stripe is in it once, and worked on by one.
type queue struct {
	ready chan struct{} // one token while there is something to take

	mu      sync.Mutex
	levels  [lostLevel + 1][]*item   // guarded by mu
	waiting map[chunk.StripeID]*item // all in levels; guarded by mu
	working map[chunk.StripeID]*item // taken and not done; guarded by mu
	after   map[chunk.StripeID]*item // to be added when work on the stripe is done; guarded by mu
	calm    int                      // items in the three that are calm; guarded by mu
	dropped int                      // what did not fit or could not be done, but for lost stripes, since the last clear; guarded by mu
	later   int                      // the same of what is calm; guarded by mu
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
			q.count(old, -1)
		}
		q.after[it.stripe] = it
		q.count(it, 1)
		return true
	}
	if old := q.waiting[it.stripe]; old != nil {
		it = merge(old, it)
		if it.level() == old.level() {
			*old = *it // the level says what is calm
			return true
		}
		q.remove(old)
	} else if len(q.waiting) >= queueMax && !q.makeRoom(it) {
		return false
	}
	q.waiting[it.stripe] = it
	q.count(it, 1)
	q.levels[it.level()] = append(q.levels[it.level()], it)
	q.token()
	return true
}

// count counts items that are calm.
func (q *queue) count(it *item, n int) {
	if it.calm {
		q.calm += n
	}
}

// merge joins what is known of one stripe; the later comparison counted it.
func merge(old, it *item) *item {
	m := *it
	m.urgent = old.urgent || it.urgent
	m.suspect = old.suspect | it.suspect
	switch {
	case it.pass != 0 && it.calm && m.urgent: // the lists do not know of damage
		m.calm, m.left = false, harm(old, it).left
	case it.pass != 0: // the lists have just been read
	case old.calm:
		m.pass, m.class, m.extras = old.pass, old.class, old.extras
	default:
		m.left = min(old.left, it.left)
		m.pass, m.class, m.extras = old.pass, old.class, old.extras
	}
	return &m
}

// harm is the one of two items that is not calm.
func harm(a, b *item) *item {
	if a.calm {
		return b
	}
	return a
}

// remove takes a waiting item out. It stays in its level, marked by its
// absence from waiting.
func (q *queue) remove(it *item) {
	delete(q.waiting, it.stripe)
	q.count(it, -1)
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
	switch {
	case it.calm:
		q.later++
	case it.left >= 0:
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
			q.count(it, 1)
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
	q.count(it, -1)
	if next := q.after[it.stripe]; next != nil {
		delete(q.after, it.stripe)
		q.count(next, -1)
		q.addLocked(next)
	}
}

func (q *queue) token() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// A backlog is what is to be done.
type backlog struct {
	items   int // stripes that wait or are worked on
	calm    int // of these, of which nothing is missing
	dropped int // what did not fit or could not be done, and is not calm
	later   int // the same of what is calm
}

func (q *queue) backlog() backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	return backlog{len(q.waiting) + len(q.working) + len(q.after), q.calm, q.dropped, q.later}
}

// again asks for another comparison once the queue is empty.
func (q *queue) again(calm bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if calm {
		q.later++
	} else {
		q.dropped++
	}
}

// clearDropped forgets what did not fit: a new comparison finds it.
func (q *queue) clearDropped() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped, q.later = 0, 0
}
