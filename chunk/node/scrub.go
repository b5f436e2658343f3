package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"dos/chunk"
	"dos/chunk/disk"
)

// Scrubbed is what reading every record of the store has found.
type Scrubbed struct {
	Round   disk.Scrubbing // the round under way or, between two, the last one; remembered across starts
	Corrupt int64          // damaged shards found since the node was made
}

type counters struct {
	mu  sync.Mutex
	all Scrubbed // guarded by mu
}

// Scrubbed says what scrubbing found so far.
func (n *Node) Scrubbed() Scrubbed {
	n.counters.mu.Lock()
	defer n.counters.mu.Unlock()
	return n.counters.all
}

const (
	// pauseMin is the shortest pause worth making to keep the rate.
	pauseMin = 20 * time.Millisecond
	// saveEvery is how much scrubbing a crash may make be done again.
	saveEvery = 10 * time.Second
)

// scrub goes round until ctx ends. It goes on where it was when the store was
// closed.
func (n *Node) scrub(ctx context.Context) error {
	for wait := n.c.ScrubSoon; pause(ctx, wait); {
		wait = n.c.ScrubSoon
		store, err := n.current()
		if err != nil {
			continue // lost; told elsewhere
		}
		p := store.Scrubbing()
		n.note(p, 0)
		if p.Next == (chunk.ID{}) {
			if left := time.Until(p.Finished.Add(n.c.ScrubPause)); left > 0 {
				wait = min(left, n.c.ScrubPause) // the clock may have been set back
				continue
			}
			p = disk.Scrubbing{Began: time.Now(), Finished: p.Finished}
		}
		debt, saved := time.Duration(0), time.Now()
		p, err = n.round(ctx, store, p, func(p disk.Scrubbing, bytes int64) bool {
			debt += time.Duration(bytes) * time.Second / time.Duration(n.c.ScrubRate)
			if time.Since(saved) >= saveEvery {
				saved = time.Now()
				store.SaveScrubbing(p)
			}
			if debt < pauseMin {
				return true
			}
			wait := debt
			debt = 0
			return pause(ctx, wait)
		})
		store.SaveScrubbing(p)
		if err == nil {
			wait = n.c.ScrubPause
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// ScrubNow checks every record as fast as the disk allows. If it fails half-way
// it says what it found so far.
func (n *Node) ScrubNow(ctx context.Context) (disk.Scrubbing, error) {
	store, err := n.current()
	if err != nil {
		return disk.Scrubbing{}, err
	}
	p := disk.Scrubbing{Began: time.Now(), Finished: store.Scrubbing().Finished}
	p, err = n.round(ctx, store, p, func(disk.Scrubbing, int64) bool { return true })
	if err == nil {
		store.SaveScrubbing(p)
	}
	return p, err
}

// round verifies every shard from where p is to the end of one incarnation of
// the store; after gets the size of each and may stop it. It returns how far it
// came.
func (n *Node) round(ctx context.Context, store *disk.Store, p disk.Scrubbing, after func(p disk.Scrubbing, bytes int64) bool) (disk.Scrubbing, error) {
	for info, err := range store.List(ctx, p.Next) {
		if err != nil {
			return p, err
		}
		p.Next = info.ID
		err := store.Verify(ctx, info.ID)
		corrupt := int64(0)
		switch {
		case err == nil:
		case errors.Is(err, chunk.ErrNotExist): // deleted meanwhile
			continue
		case errors.Is(err, chunk.ErrCorrupt):
			corrupt = 1
			n.report(info.ID, err)
		default:
			return p, err
		}
		p.Records++
		p.Bytes += info.Size
		p.Corrupt += corrupt
		p.Next = next(info.ID)
		n.note(p, corrupt)
		if !after(p, info.Size) {
			return p, context.Cause(ctx)
		}
	}
	p.Next, p.Finished = chunk.ID{}, time.Now()
	n.note(p, 0)
	return p, nil
}

// next is the ID that follows id.
func next(id chunk.ID) chunk.ID {
	if id.Index++; id.Index == 0 {
		id.Stripe++
	}
	return id
}

func (n *Node) note(p disk.Scrubbing, corrupt int64) {
	n.counters.mu.Lock()
	defer n.counters.mu.Unlock()
	n.counters.all.Round = p
	n.counters.all.Corrupt += corrupt
}
