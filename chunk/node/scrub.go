package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"dos/chunk"
)

// A Round says what scrubbing once through a store found.
type Round struct {
	Records int64
	Bytes   int64
	Corrupt int64
	Began   time.Time
	Took    time.Duration
}

// Scrubbed counts over all rounds since the node was made.
type Scrubbed struct {
	Records int64
	Corrupt int64
	Last    Round // the last one that got through
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

// pauseMin is the shortest pause worth making to keep the rate.
const pauseMin = 20 * time.Millisecond

// scrub goes round until ctx ends.
func (n *Node) scrub(ctx context.Context) error {
	for pause(ctx, n.c.ScrubPause) {
		debt := time.Duration(0)
		// An error is the store's loss or the end: both are told elsewhere.
		_, _ = n.round(ctx, func(bytes int64) bool {
			debt += time.Duration(bytes) * time.Second / time.Duration(n.c.ScrubRate)
			if debt < pauseMin {
				return true
			}
			wait := debt
			debt = 0
			return pause(ctx, wait)
		})
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
func (n *Node) ScrubNow(ctx context.Context) (Round, error) {
	return n.round(ctx, func(int64) bool { return true })
}

// round verifies every shard; after gets the size of each and may stop it.
func (n *Node) round(ctx context.Context, after func(bytes int64) bool) (Round, error) {
	r := Round{Began: time.Now()}
	store, err := n.current() // one incarnation: if it is lost, so is the round
	if err != nil {
		return r, err
	}
	for info, err := range store.List(ctx, chunk.ID{}) {
		if err != nil {
			return r, err
		}
		err := store.Verify(ctx, info.ID)
		switch {
		case err == nil:
		case errors.Is(err, chunk.ErrNotExist): // deleted meanwhile
			continue
		case errors.Is(err, chunk.ErrCorrupt):
			r.Corrupt++
			n.report(info.ID, err)
		default:
			return r, err
		}
		r.Records++
		r.Bytes += info.Size
		n.count(err != nil)
		if !after(info.Size) {
			return r, ctx.Err()
		}
	}
	r.Took = time.Since(r.Began)
	n.counters.mu.Lock()
	defer n.counters.mu.Unlock()
	n.counters.all.Last = r
	return r, nil
}

func (n *Node) count(corrupt bool) {
	n.counters.mu.Lock()
	defer n.counters.mu.Unlock()
	n.counters.all.Records++
	if corrupt {
		n.counters.all.Corrupt++
	}
}
