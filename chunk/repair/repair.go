// Package repair finds shards that are lost and rebuilds them, and deletes
// shards that nothing names, without anyone asking. It compares what the
// stripe table says with what the stores list, and hears from readers about
// damage that they meet. It also moves shards that are where they should not be:
// on stores that are to be emptied, or that the placement group has not among
// its members (any more). It knows nothing of files: the table is all that it
// sees of the metadata service.
//
// What comes first: the stripe with the least redundancy left, then what is
// whole and on a store that is leaving, then what only lies in the wrong place.
// Several are worked on at once, and since the members of each group are others,
// all stores take part. A store that is slow is not waited for when there is
// another, and one that does not answer is left alone for a while.
//
// One Repairer at a time works on a table, but for a moment there may be two,
// when the charge of the cluster changes hands, and a request may arrive long
// after it was given up. No shard is deleted that the table names, because
//
//   - what belongs to no stripe is deleted only when the table says that none
//     will ever name it, which nothing can change;
//   - a shard that the table has on another store is deleted when two looks at
//     least 20 s apart have found it so, the stripe is full without it, and the
//     table, read right before from a majority, does not name it. A Repairer puts
//     a shard and moves its row to it within half that time or not at all, so what
//     has lain there for longer is nobody's who is about to name it;
//   - a Repairer moves nothing in its first 20 s, when the deletes of the one
//     before it may still be under way;
//   - what was moved is looked at once more after the table has named it.
package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/chunk/erasure"
)

// Cluster is what repair needs to know of the stores. It must not block.
type Cluster interface {
	// Stores lists the stores of the cluster, live or not.
	Stores() []chunk.StoreID
	// Store returns the store with that ID and whether it is thought to work.
	Store(id chunk.StoreID) (s chunk.Store, live bool)
	// Group returns the stores that a stripe may lie on.
	Group(id chunk.StripeID) chunk.Group
	// Code returns the code wanted for new stripes.
	Code() chunk.Code
}

// A Leaver is a Cluster that says which stores are given up, and why. Of one that
// is none, a store is given up when it has been away for Config.Grace.
type Leaver interface {
	// Leaving reports whether what a store has is to be moved off. If it is out
	// too, the store is not waited for: what it has is rebuilt if it is away.
	Leaving(id chunk.StoreID) (leaving, out bool)
}

// A Move says that a shard lies on another store than before.
type Move struct {
	Stripe   chunk.StripeID
	Index    uint8
	From, To chunk.StoreID
}

// Table is the stripe table.
type Table interface {
	// Stripes lists stripes with IDs after the one given, in ID order, at most
	// limit; more says whether there are others. Dead stripes may be among them.
	Stripes(ctx context.Context, after chunk.StripeID, limit int) (list []chunk.Stripe, more bool, err error)
	// Move changes where shards lie. A move whose stripe is gone or whose
	// shard is not at From any more is ignored.
	Move(ctx context.Context, moves []Move) error
	// Dead lists stripes that no extent has named since before that time, at most limit.
	Dead(ctx context.Context, before time.Time, limit int) ([]chunk.Stripe, error)
	// Bury forgets dead stripes. IDs that are not dead are ignored.
	Bury(ctx context.Context, ids []chunk.StripeID) error
	// Unnamed returns those of the IDs that have no row, not even a dead one,
	// and never will: they are below the low-water mark of the session that
	// reserved them, or it has ended.
	Unnamed(ctx context.Context, ids []chunk.StripeID) ([]chunk.StripeID, error)
}

// The defaults of Config.
const (
	DefaultGrace     = 10 * time.Minute
	DefaultEvery     = time.Hour
	DefaultRetry     = 5 * time.Second
	DefaultDeadGrace = time.Minute
	DefaultTimeout   = 30 * time.Second
	DefaultSlow      = 5 * time.Second
	DefaultWorkers   = 4
)

// settle is how long a shard that seems to be too many is left alone, and how
// long after its start a Repairer moves nothing; see above.
const settle = 20 * time.Second

// poll is how often the Repairer looks which stores live.
const poll = time.Second

// Config says how to repair. Zero values mean the defaults named.
type Config struct {
	Cluster Cluster        // required
	Table   Table          // required
	Coder   *erasure.Coder // shared with others; one of its own

	Grace     time.Duration // a store may be away so long before its shards move, if Cluster is no Leaver; DefaultGrace
	Every     time.Duration // between comparisons when nothing happens, at most; DefaultEvery
	Retry     time.Duration // before the next comparison when one failed; DefaultRetry
	DeadGrace time.Duration // a dead stripe is kept so long for late readers; DefaultDeadGrace
	Timeout   time.Duration // of one call of the table; DefaultTimeout
	Slow      time.Duration // of one call of a store, well below 10 s; DefaultSlow
	Workers   int           // stripes rebuilt at the same time; DefaultWorkers
	Rate      int64         // bytes rebuilt in a second at most; 0 is no limit
}

// A Repairer keeps the redundancy of stripes full. Its methods may be called
// concurrently, Run once.
type Repairer struct {
	config Config
	coder  *erasure.Coder
	leaver Leaver // Cluster, if it is one
	rate   rate
	queue  queue
	wake   chan struct{} // one token: the comparison has a reason to run
	begun  time.Time     // Run; set before anything else runs

	patience patience
	extras   map[extra]time.Time // when a shard was first found to be too many; of the comparison alone

	mu      sync.Mutex
	epoch   uint64                      // grows when what was known of the stores is out of date; guarded by mu
	away    map[chunk.StoreID]time.Time // since when a store does not live; guarded by mu
	back    map[chunk.StoreID]time.Time // when a store was last found to live again; guarded by mu
	expired map[chunk.StoreID]bool      // of those away, which are not waited for any more; guarded by mu
	leaving map[chunk.StoreID]bool      // stores whose shards are to be moved off; guarded by mu
	groups  uint64                      // the sum of the epochs of all groups; guarded by mu
	last    pass                        // the last comparison that ended; guarded by mu
	current *pass                       // the one that runs, or nil; guarded by mu
	passes  uint64                      // comparisons begun; guarded by mu
	done    progress                    // guarded by mu
	spell   spell                       // guarded by mu
	lines   int                         // about stripes, in this comparison; guarded by mu
}

// New returns a Repairer.
func New(c Config) (*Repairer, error) {
	if c.Cluster == nil || c.Table == nil {
		return nil, errors.New("repair: Cluster and Table are required")
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Grace, DefaultGrace}, {&c.Every, DefaultEvery}, {&c.Retry, DefaultRetry},
		{&c.DeadGrace, DefaultDeadGrace}, {&c.Timeout, DefaultTimeout}, {&c.Slow, DefaultSlow},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Slow >= settle/2 {
		return nil, fmt.Errorf("repair: Slow is %v; calls have to end well before %v", c.Slow, settle)
	}
	if c.Workers == 0 {
		c.Workers = DefaultWorkers
	}
	if c.Coder == nil {
		c.Coder = new(erasure.Coder)
	}
	r := &Repairer{config: c, coder: c.Coder, wake: make(chan struct{}, 1),
		away: make(map[chunk.StoreID]time.Time), back: make(map[chunk.StoreID]time.Time),
		expired: make(map[chunk.StoreID]bool), leaving: make(map[chunk.StoreID]bool), extras: make(map[extra]time.Time)}
	r.leaver, _ = c.Cluster.(Leaver)
	r.rate.perSecond = c.Rate
	r.queue.init()
	r.patience.init()
	return r, nil
}

// Run repairs until ctx ends, and all calls of stores have returned.
func (r *Repairer) Run(ctx context.Context) error {
	defer r.patience.calls.Wait()
	r.begun = time.Now()
	r.look()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.compareAll(ctx) })
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.collect(ctx) })
	for range r.config.Workers {
		g.Go(func() error { return r.work(ctx) })
	}
	return g.Wait()
}

// Notify says that a store came up, perhaps empty, or was lost. A comparison follows.
func (r *Repairer) Notify() {
	r.mu.Lock()
	r.epoch++
	r.mu.Unlock()
	r.signal()
}

// Damaged says that a shard is missing or corrupt on a live store. Its stripe
// goes before all others that have as much redundancy left.
func (r *Repairer) Damaged(id chunk.ID) {
	// How much is left is not known yet; that one shard is gone is.
	if !r.queue.add(&item{stripe: id.Stripe, left: max(int(r.config.Cluster.Code().M)-1, 0), urgent: true, suspect: 1 << id.Index}) {
		r.Notify() // the next comparison
	}
}

func (r *Repairer) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// watch looks which stores live, so that repair begins also when nobody calls Notify.
func (r *Repairer) watch(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if r.look() {
			r.Notify()
		}
	}
}

// look notes which stores are away and for how long, which are leaving, and
// whether the groups are others. It reports whether that changed what is to be done.
func (r *Repairer) look() bool {
	now := time.Now()
	c := r.config.Cluster
	stores := c.Stores()
	groups := uint64(0)
	for g := range chunk.Groups {
		groups += c.Group(chunk.StripeID(g)).Epoch
	}
	seen := make(map[chunk.StoreID]bool, len(stores))
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := r.groups != groups
	r.groups = groups
	for _, id := range stores {
		seen[id] = true
		_, live := c.Store(id)
		since, away := r.away[id]
		switch {
		case live && away:
			delete(r.away, id)
			r.back[id] = now
			changed = true
		case !live && !away:
			r.away[id] = now
			since, away, changed = now, true, true
		}
		leaving, gone := false, now.Sub(since) >= r.config.Grace
		if r.leaver != nil {
			leaving, gone = r.leaver.Leaving(id)
		}
		changed = mark(r.leaving, id, leaving) || changed
		changed = mark(r.expired, id, gone && away && !live) || changed
	}
	unknown := func(id chunk.StoreID) bool { return !seen[id] }
	for _, times := range []map[chunk.StoreID]time.Time{r.away, r.back} {
		maps.DeleteFunc(times, func(id chunk.StoreID, _ time.Time) bool { return unknown(id) })
	}
	for _, marks := range []map[chunk.StoreID]bool{r.expired, r.leaving} {
		maps.DeleteFunc(marks, func(id chunk.StoreID, _ bool) bool { return unknown(id) })
	}
	return changed
}

// mark puts id into a set or takes it out, and reports whether that changed the set.
func mark(set map[chunk.StoreID]bool, id chunk.StoreID, in bool) bool {
	if set[id] == in {
		return false
	}
	if in {
		set[id] = true
	} else {
		delete(set, id)
	}
	return true
}

// missed notes that a store was found away, so that its return is noticed even
// if it is back before the next poll.
func (r *Repairer) missed(id chunk.StoreID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.away[id]; !ok {
		r.away[id] = time.Now()
	}
}

// movable reports whether shards of a store that does not live are to be
// rebuilt elsewhere by now. What the cluster does not know will not come back.
func (r *Repairer) movable(id chunk.StoreID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.expired[id] || !slices.Contains(r.config.Cluster.Stores(), id)
}

// isLeaving reports whether what a store has is to be moved off.
func (r *Repairer) isLeaving(id chunk.StoreID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaving[id]
}

// mayMove reports whether this Repairer has run for long enough to move shards.
func (r *Repairer) mayMove() bool { return time.Since(r.begun) >= settle }
