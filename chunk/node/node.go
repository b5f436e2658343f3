// Package node is one chunk store's life: it opens the folder, notices when the
// folder is lost, waits for it to come back or starts empty, and scrubs.
//
// To its users it is one chunk.Store that is sometimes lost. It does not know who
// they are, nor how lost shards are rebuilt: it says what is gone.
package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/chunk/disk"
)

const (
	defaultRetry = time.Second
	defaultRate  = 8 << 20
	defaultSoon  = time.Minute
	defaultPause = time.Hour
)

// Config says how to run a node. The zero value of an optional field means the
// default named beside it.
type Config struct {
	Dir  string
	Disk disk.Config // Cluster and Store are required

	// MayStartEmpty is asked when there is nothing at the path, or something so
	// damaged that nobody can say what it was, whether to make an empty store
	// there; default: never. What was damaged is removed then.
	MayStartEmpty func(context.Context) bool
	// Absent says why the store that is to be at the path may be elsewhere when
	// there is none; then no empty one is made, and State.Why is what it said.
	// Optional.
	Absent func() error
	// Changed is called when the state has changed, one call at a time.
	Changed func(State)
	// Corrupt is called with each shard that was found damaged, perhaps by several
	// goroutines and more than once. It must not block for long.
	Corrupt func(chunk.ID)

	Retry      time.Duration // between attempts to open a lost folder; 1 s
	ScrubRate  int           // bytes per second; 8 MiB
	ScrubSoon  time.Duration // after the start, before scrubbing goes on or begins; 1 min
	ScrubPause time.Duration // between two rounds of scrubbing; 1 h
}

// A State says how a node is.
type State struct {
	Up    bool
	Since time.Time // it has been up, or lost
	// Empty, when up: it started with an empty store. Else it has the contents
	// that were found at the path.
	Empty       bool
	Incarnation disk.Incarnation // of the contents; the last ones when lost
	Why         error            // when lost: the cause, or why the latest attempt failed
}

func (s State) String() string {
	switch {
	case s.Up && s.Empty:
		return "up, empty"
	case s.Up:
		return "up"
	case s.Why != nil:
		return "lost: " + s.Why.Error()
	}
	return "lost"
}

// same reports whether nothing has changed but the time.
func (s State) same(t State) bool {
	return s.Up == t.Up && s.Empty == t.Empty && s.Incarnation == t.Incarnation && fmt.Sprint(s.Why) == fmt.Sprint(t.Why)
}

// A Node is a chunk.Store while Run runs; before and after it is lost.
type Node struct {
	c        Config
	counters counters

	mu    sync.RWMutex
	store *disk.Store // guarded by mu; nil while lost
	state State       // guarded by mu
}

var (
	_ chunk.Store    = (*Node)(nil)
	_ chunk.Scrubber = (*Node)(nil)
)

// ErrNotYet is State.Why before the first attempt to open the folder.
var ErrNotYet = errors.New("not opened yet")

// New returns a node that waits for Run.
func New(c Config) (*Node, error) {
	if c.Dir == "" || c.Disk.Cluster == "" || c.Disk.Store == 0 {
		return nil, errors.New("node: Dir, Disk.Cluster and Disk.Store are required")
	}
	if c.Retry == 0 {
		c.Retry = defaultRetry
	}
	if c.ScrubRate == 0 {
		c.ScrubRate = defaultRate
	}
	if c.ScrubSoon == 0 {
		c.ScrubSoon = defaultSoon
	}
	if c.ScrubPause == 0 {
		c.ScrubPause = defaultPause
	}
	if c.Retry < 0 || c.ScrubRate < 0 || c.ScrubSoon < 0 || c.ScrubPause < 0 {
		return nil, errors.New("node: Retry, ScrubRate, ScrubSoon and ScrubPause must not be negative")
	}
	return &Node{c: c, state: State{Since: time.Now(), Why: ErrNotYet}}, nil
}

// Run keeps the store open until ctx ends, then closes it cleanly. What is wrong
// with the folder is in State and not an error: it may come right.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.keepOpen(ctx) })
	g.Go(func() error { return n.scrub(ctx) })
	return g.Wait()
}

func (n *Node) keepOpen(ctx context.Context) error {
	for {
		store, empty, err := n.open(ctx)
		if err == nil {
			n.set(store, State{Up: true, Empty: empty, Incarnation: store.Identity().Incarnation})
			select {
			case <-ctx.Done():
				n.set(nil, State{Incarnation: n.State().Incarnation, Why: ctx.Err()})
				return store.Close()
			case <-store.Lost():
			}
			err = store.Err()
			n.set(nil, State{Incarnation: n.State().Incarnation, Why: err})
			// It is lost: that it cannot be closed cleanly is no news.
			_ = store.Close()
		} else if ctx.Err() == nil {
			n.set(nil, State{Incarnation: n.State().Incarnation, Why: err})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(n.c.Retry): // also after a loss: whoever removes the folder shall finish
		}
	}
}

// open opens what is at the path, or makes an empty store there.
func (n *Node) open(ctx context.Context) (store *disk.Store, empty bool, err error) {
	store, err = disk.Open(n.c.Dir, n.c.Disk)
	damaged := errors.Is(err, disk.ErrDamaged)
	if err == nil || !damaged && !errors.Is(err, disk.ErrNone) {
		return store, false, err
	}
	if n.c.Absent != nil && !damaged {
		if why := n.c.Absent(); why != nil {
			return nil, false, why
		}
	}
	if n.c.MayStartEmpty == nil || !n.c.MayStartEmpty(ctx) {
		return nil, false, err
	}
	if damaged {
		if err := disk.Clear(n.c.Dir, n.c.Disk); err != nil {
			return nil, false, err
		}
	}
	if _, err := disk.Create(n.c.Dir, n.c.Disk); err != nil {
		return nil, false, err
	}
	store, err = disk.Open(n.c.Dir, n.c.Disk)
	return store, true, err
}

// set changes the state and says so. Only keepOpen calls it.
func (n *Node) set(store *disk.Store, next State) {
	n.mu.Lock()
	n.store = store
	if next.same(n.state) {
		n.mu.Unlock()
		return
	}
	next.Since = time.Now()
	if !next.Up && !n.state.Up {
		next.Since = n.state.Since
	}
	n.state = next
	n.mu.Unlock()
	if n.c.Changed != nil {
		n.c.Changed(next)
	}
}

// ID says which store this is.
func (n *Node) ID() chunk.StoreID { return n.c.Disk.Store }

// State says how the node is.
func (n *Node) State() State {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.state
}

// current returns the open store.
func (n *Node) current() (*disk.Store, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	switch {
	case n.store != nil:
		return n.store, nil
	case errors.Is(n.state.Why, chunk.ErrLost):
		return nil, n.state.Why
	}
	return nil, fmt.Errorf("store %d: %w: %w", n.c.Disk.Store, chunk.ErrLost, n.state.Why)
}

func (n *Node) Put(ctx context.Context, id chunk.ID, data []byte) error {
	s, err := n.current()
	if err != nil {
		return err
	}
	return s.Put(ctx, id, data)
}

func (n *Node) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	s, err := n.current()
	if err != nil {
		return 0, err
	}
	got, err := s.ReadAt(ctx, id, p, off)
	n.report(id, err)
	return got, err
}

// Place is chunk.Placer's.
func (n *Node) Place(ctx context.Context, id chunk.ID, size int, off int64) (chunk.Extent, error) {
	s, err := n.current()
	if err != nil {
		return chunk.Extent{}, err
	}
	return s.Place(ctx, id, size, off)
}

func (n *Node) Verify(ctx context.Context, id chunk.ID) error {
	s, err := n.current()
	if err != nil {
		return err
	}
	err = s.Verify(ctx, id)
	n.report(id, err)
	return err
}

// report tells of a damaged shard.
func (n *Node) report(id chunk.ID, err error) {
	if n.c.Corrupt != nil && errors.Is(err, chunk.ErrCorrupt) {
		n.c.Corrupt(id)
	}
}

func (n *Node) Stat(ctx context.Context, id chunk.ID) (chunk.Info, error) {
	s, err := n.current()
	if err != nil {
		return chunk.Info{}, err
	}
	return s.Stat(ctx, id)
}

func (n *Node) Delete(ctx context.Context, ids ...chunk.ID) error {
	s, err := n.current()
	if err != nil {
		return err
	}
	return s.Delete(ctx, ids...)
}

func (n *Node) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	s, err := n.current()
	if err != nil {
		return func(yield func(chunk.Info, error) bool) { yield(chunk.Info{}, err) }
	}
	return s.List(ctx, from)
}

func (n *Node) Usage(ctx context.Context) (chunk.Usage, error) {
	s, err := n.current()
	if err != nil {
		return chunk.Usage{}, err
	}
	return s.Usage(ctx)
}
