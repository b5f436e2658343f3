// Package stripe is the data path: it writes the bytes of a stripe to k+m
// stores and reads them back from any k. It chooses the code and the stores of
// each stripe from those that live, hedges against slow ones, and hands out
// stripe IDs. It knows nothing of files, nor of how the cluster came to know
// which stores live.
//
// Reads go straight into the caller's buffer and writes straight from it, so a
// store must return soon after the context of a call has ended: a read waits
// for a store that it has cancelled, since that store may still fill the
// buffer. A store that does not is passed over by later calls, but those that
// were in it stay as long as it does.
package stripe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dos/chunk"
	"dos/chunk/erasure"
)

// Cluster is what the data path needs to know of the cluster. Its answers may
// change at any time; it is asked for each stripe and must not block.
type Cluster interface {
	// Store returns the store with that ID and whether it is thought to work.
	// The store may be nil when it is not.
	Store(id chunk.StoreID) (s chunk.Store, live bool)
	// Group returns the stores that a stripe is to be written to.
	Group(id chunk.StripeID) chunk.Group
	// Code returns the code that is wanted when all stores live.
	Code() chunk.Code
}

// IDs hands out stripe IDs.
type IDs interface {
	// Reserve returns the first of n IDs in sequence that are handed out to
	// nobody else. Each answer is above all earlier ones.
	Reserve(ctx context.Context, n int) (first chunk.StripeID, err error)
}

// The defaults of Config.
const (
	DefaultHedge   = 3 * time.Millisecond
	DefaultSlow    = 2 * time.Second
	DefaultGiveUp  = 8 * time.Second
	DefaultTimeout = 30 * time.Second
	DefaultReserve = 4096
)

const (
	// settle is how long a call waits for a store that it has cancelled and
	// that may still read the caller's data.
	settle = time.Second
	// afterSlow and afterError are how long a store is used only when there is
	// no other, after it was slow and after it refused something.
	afterSlow  = 10 * time.Second
	afterError = time.Second
)

// Config says what a Path works with. Zero values mean the defaults named.
type Config struct {
	Cluster Cluster        // required
	IDs     IDs            // required for Begin
	Coder   *erasure.Coder // shared with others; one of its own

	// Damaged is told of each shard that a read found missing or corrupt on a
	// live store. It must not block.
	Damaged func(chunk.ID)
	// Changed returns a channel that is closed when the answers of Cluster may
	// have changed. With it a Write or Read for which too few stores can be
	// reached waits until there are enough, for at most Timeout; without it
	// that fails at once.
	Changed func() <-chan struct{}
	// Disk names the file system that a store lies on, so that Capacity does
	// not count one twice. Without it each store has its own.
	Disk func(chunk.StoreID) string

	Hedge   time.Duration // the least time before a read asks others; DefaultHedge
	Slow    time.Duration // after this a store is passed over if there is another; DefaultSlow
	GiveUp  time.Duration // after this a write does with fewer stores; DefaultGiveUp
	Timeout time.Duration // bounds each Write and Read; DefaultTimeout
	Reserve int           // IDs reserved at once; DefaultReserve
}

// A Path reads and writes stripes. Its methods may be called concurrently.
type Path struct {
	config Config
	coder  *erasure.Coder
	ids    ids
	pace   pace
	space  space

	wg sync.WaitGroup // calls to stores that outlive the call that began them

	mu     sync.RWMutex
	health map[chunk.StoreID]*health // guarded by mu
}

// New returns a Path.
func New(c Config) (*Path, error) {
	if c.Cluster == nil {
		return nil, errors.New("stripe: a Cluster is required")
	}
	if c.Hedge == 0 {
		c.Hedge = DefaultHedge
	}
	if c.Slow == 0 {
		c.Slow = DefaultSlow
	}
	if c.GiveUp == 0 {
		c.GiveUp = DefaultGiveUp
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	if c.Coder == nil {
		c.Coder = new(erasure.Coder)
	}
	if c.Damaged == nil {
		c.Damaged = func(chunk.ID) {}
	}
	p := &Path{config: c, coder: c.Coder, health: make(map[chunk.StoreID]*health)}
	p.ids.init(c.IDs, c.Reserve)
	p.pace.init(c.Hedge, c.Slow)
	p.space.turn = make(chan struct{}, 1)
	return p, nil
}

// Close waits for the calls to stores that were passed over and have not
// returned yet, until ctx ends. No other call may run or follow.
func (p *Path) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last call to a store
		p.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stripe: stores still hold calls: %w", context.Cause(ctx))
	}
}

// health remembers that a store was slow or refused something.
type health struct {
	stuck atomic.Int32 // calls in it that were cancelled and have not returned
	until atomic.Int64 // Unix nanoseconds: doubtful before then
}

func (p *Path) healthOf(id chunk.StoreID) *health {
	p.mu.RLock()
	h := p.health[id]
	p.mu.RUnlock()
	if h != nil {
		return h
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h = p.health[id]; h == nil {
		h = new(health)
		p.health[id] = h
	}
	return h
}

// doubtful reports whether a store should be used only if there is no other.
func (p *Path) doubtful(id chunk.StoreID) bool {
	h := p.healthOf(id)
	if h.stuck.Load() > 0 {
		return true
	}
	until := h.until.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// doubt makes a store doubtful for a while.
func (p *Path) doubt(id chunk.StoreID, d time.Duration) {
	p.healthOf(id).until.Store(time.Now().Add(d).UnixNano())
}

// trust ends doubt.
func (p *Path) trust(id chunk.StoreID) {
	if h := p.healthOf(id); h.until.Load() != 0 {
		h.until.Store(0)
	}
}
