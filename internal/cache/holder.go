package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	entries "dos/chunk/cache"
	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/state"
)

const (
	// callWait bounds a call of the metadata service. An answer may be held back for two seconds.
	callWait = 5 * time.Second
	// callRetry is the pause after one that failed.
	callRetry = 100 * time.Millisecond
	// waitMax bounds how long a holder has somebody wait until a key is its own.
	waitMax = 2 * time.Second
	// weighEvery is how often a holder tells that it has another share of the memory, if
	// it is another by more than a quarter: what moves then is lost.
	weighEvery = 30 * time.Second
	// sweepEvery is how often expired entries are looked for, sweepChains in how many
	// chains of the table.
	sweepEvery  = 100 * time.Millisecond
	sweepChains = 4096
	// weightUnit is the memory that a weight of 1 stands for, in bytes.
	weightUnit = 1 << 20
	// stripes is how many writes of replicated buckets can be under way at once, unless
	// they are of one key.
	stripes = 256
)

// A Caller executes one operation of the metadata service (client.Caller).
type Caller interface {
	Call(ctx context.Context, op state.Op, req, resp any) error
}

// A Line is the way to another process (rpc.Client).
type Line interface {
	Open(ctx context.Context, service, method string) (*rpc.Stream, error)
}

// Lines are the ways to the members.
type Lines interface {
	// Line returns the way to one. It does not connect yet.
	Line(cache.Member) (Line, error)
}

// Config says what a Holder works with. All of it is required but what says otherwise.
type Config struct {
	Session    meta.SessionID
	Node, Addr string // the machine's
	// Meta makes calls of the session.
	Meta Caller
	// Valid reports whether the session is certainly not over.
	Valid func() bool
	// Lines are the ways to the others; nil if there are none.
	Lines Lines
	// Entries is where they are, empty. The Holder does not close it.
	Entries *entries.Cache
	// NeedDisk is called when there are buckets that want a disk tier; nil: there is none.
	NeedDisk func()
	Log      *slog.Logger // slog.Default()
}

// A Holder answers for keys for one session. Its methods may be called concurrently,
// Run once.
type Holder struct {
	cfg     Config
	me      meta.SessionID
	entries *entries.Cache
	peers   *peers
	here    *party // of callers in this process

	// mu is held for reading by whoever reads or changes entries by a view, and to
	// exchange that.
	mu    sync.RWMutex
	view  atomic.Pointer[view] // nil at first; changes with mu held
	sweep atomic.Pointer[func(bucket uint64, key []byte) bool]

	stripes [stripes]sync.Mutex // of writes that have copies, by the key's hash
	fill    atomic.Uint64       // the last number of a right to fill
}

// New returns a Holder that answers for nothing yet.
func New(c Config) *Holder {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Holder{cfg: c, me: c.Session, entries: c.Entries, peers: newPeers(c.Lines), here: newParty()}
}

// Run takes part until ctx ends. It returns meta.Expired if another has taken its place.
func (h *Holder) Run(ctx context.Context) error {
	defer h.peers.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.follow(ctx) })
	g.Go(func() error { h.clean(ctx); return nil })
	return g.Wait()
}

// Leave has the Holder answer for nothing any more.
func (h *Holder) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.view.Swap(nil); v != nil {
		close(v.changed)
	}
}

// follow installs each version, as it comes.
func (h *Holder) follow(ctx context.Context) error {
	defer h.Leave()
	var known uint64
	for ctx.Err() == nil {
		var req cache.Follow
		v := h.view.Load()
		if v != nil {
			req = cache.Follow{Seen: v.stamp, Version: v.version}
		}
		var o cache.Overview
		err := h.call(ctx, cache.OpFollow, req, &o)
		is := false
		for _, m := range o.Members {
			is = is || m.Session == h.me
		}
		switch {
		case err == nil && !is && v != nil:
			return fmt.Errorf("another process has the place of machine %s: %w", h.cfg.Node, meta.Expired)
		case err == nil && !is:
			err = h.call(ctx, cache.OpServe, cache.Serve{Node: h.cfg.Node, Addr: h.cfg.Addr, Weight: h.weight()}, nil)
		case err == nil:
			h.install(o)
			if known < o.Version {
				if err = h.call(ctx, cache.OpKnow, cache.Know{Version: o.Version}, nil); err == nil {
					known = o.Version
				}
			}
		}
		if errors.Is(err, meta.Expired) {
			return err
		}
		if err != nil {
			pause(ctx, callRetry)
		}
	}
	return nil
}

// weight is this machine's share.
func (h *Holder) weight() uint32 {
	_, limit := h.entries.Memory()
	return uint32(min(max(1, limit/weightUnit), cache.WeightMax))
}

func (h *Holder) call(ctx context.Context, op state.Op, req, resp any) error {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return h.cfg.Meta.Call(ctx, op, req, resp)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// install makes what was read what is done here. When it returns, nothing is there any
// more of what is another's now.
func (h *Holder) install(o cache.Overview) {
	prev := h.view.Load()
	next := newView(o, prev, h.me)
	var keep func(bucket uint64, key []byte) bool
	if prev != nil {
		keep = keeper(prev, next, h.me)
	}
	if h.cfg.NeedDisk != nil && slices.ContainsFunc(next.list(), func(b cache.Bucket) bool { return b.Settings.Tier != cache.Memory }) {
		h.cfg.NeedDisk()
	}
	h.mu.Lock()
	if keep != nil {
		h.sweep.Store(&keep) // before, so that nothing is found that is to go
	}
	h.configure(prev, next)
	h.view.Store(next)
	h.mu.Unlock()
	if prev != nil {
		close(prev.changed)
	}
	if keep != nil {
		h.entries.Retain(keep)
		h.sweep.Store(nil)
	}
}

// configure makes the buckets those of a view. h.mu is held.
func (h *Holder) configure(prev, next *view) {
	for id, b := range next.buckets {
		s := entries.Settings{
			Policy: entries.Policy(b.Settings.Policy), Tier: entries.Tier(b.Settings.Tier), TTL: b.Settings.TTL,
			Max: share(b.Settings, int64(next.members[h.me].Weight), next.weight),
		}
		if err := h.entries.Configure(at(b), s); err != nil && !errors.Is(err, entries.ErrClosed) {
			h.cfg.Log.Error("cache: a bucket is not what it is to be here", "bucket", b.Name, "id", id, "err", err)
		}
	}
	if prev == nil {
		return
	}
	for id := range prev.buckets {
		if _, is := next.buckets[id]; !is {
			h.entries.Drop(id)
		}
	}
}

func at(b cache.Bucket) entries.Bucket {
	return entries.Bucket{ID: b.ID, Generation: b.Generation}
}

// share is a member's part of the memory that a bucket may take.
func share(s cache.Settings, weight, all int64) int64 {
	if s.Max == 0 || weight >= all {
		return s.Max
	}
	part := float64(s.Max) * float64(min(int64(s.Replicas)*weight, all)) / float64(all)
	return max(1, int64(part))
}

// weigh tells how much memory there is here, if that has changed much.
func (h *Holder) weigh(ctx context.Context) {
	v := h.view.Load()
	if v == nil {
		return
	}
	was, is := int64(v.members[h.me].Weight), int64(h.weight())
	if 4*max(was-is, is-was) <= was {
		return
	}
	if err := h.call(ctx, cache.OpWeigh, cache.Weigh{Weight: uint32(is)}, nil); err != nil {
		h.cfg.Log.Debug("cache: telling of another share", "err", err) // it is told again
	}
}

// clean drops what has expired, and tells of what memory there is.
func (h *Holder) clean(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	weigh := time.NewTicker(weighEvery)
	defer weigh.Stop()
	for {
		select {
		case <-tick.C:
			h.entries.Sweep(sweepChains)
		case <-weigh.C:
			h.weigh(ctx)
		case <-ctx.Done():
			return
		}
	}
}
