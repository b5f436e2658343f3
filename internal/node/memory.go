package node

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/internal/boottime"
	"dos/internal/cache"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
	truth "dos/meta/cache"
	"dos/meta/client"
	"dos/meta/members"
	metamemory "dos/meta/memory"
	"dos/meta/queue"
	metarpc "dos/meta/rpc"
	"dos/meta/state"
)

// holdTTL is how long a machine that holds queues in memory may be cut off from the
// metadata service until it has lost them.
const holdTTL = 10 * time.Second

// leaveWait is how long a machine that stops tries to say so: where all stop, there is
// soon nobody to hear it.
const leaveWait = time.Second

// followConns is how many connections there are to one that follows: each queue has a
// stream, and a connection takes 256.
const followConns = 4

// A holding is this process's part of what is in memory, queues and entries of the
// cache, in the session of the moment.
type holding struct {
	now     atomic.Pointer[metamemory.Holder]
	entries atomic.Pointer[cache.Holder]
}

// Do is client.Sender's.
func (h *holding) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	now := h.now.Load()
	if now == nil {
		return state.Reply{}, fmt.Errorf("no queues are held here yet: %w", meta.Unavailable)
	}
	return now.Do(ctx, cmd)
}

// Holder is client.Holders', where this process holds them all.
func (h *holding) Holder(queue.Holder) (client.Sender, error) { return h, nil }

// hold holds queues in one session after the other until ctx ends.
func (m *Machine) hold(ctx context.Context) error {
	if !m.has(roleCache) {
		return nil
	}
	for ctx.Err() == nil {
		if err := insist(ctx, "holding queues in memory", m.holdOnce); err != nil {
			return err
		}
	}
	return nil
}

// holdOnce holds queues in one session.
func (m *Machine) holdOnce(ctx context.Context) error {
	sent := boottime.Now()
	sessions := client.Session{Caller: m.service.anyone()}
	info, err := sessions.Open(ctx, "queues in memory", m.data.node, holdTTL)
	if err != nil {
		return err
	}
	caller := client.NewRemote(m.service, info.ID)
	keeper := client.NewKeeper(caller, info, sent)
	h := metamemory.New(metamemory.Config{
		Session: info.ID, Node: m.data.node, Addr: m.cfg.Listen, Meta: caller, Valid: keeper.Valid,
		Line: func(to queue.Holder) (metamemory.Line, error) { return m.holders.line(to, followConns) },
	})
	c, err := newCaching(filepath.Join(m.data.path, "cache"), cache.Config{
		Session: info.ID, Node: m.data.node, Addr: m.cfg.Listen, Meta: caller, Valid: keeper.Valid, Lines: m.holders,
	}, h, func(context.Context) (members.Map, error) { return m.fleet.Map(), nil })
	if err != nil {
		return err
	}
	m.holding.now.Store(h)
	m.holding.entries.Store(c.Holder)
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return keeper.Run(running) })
	g.Go(func() error { return h.Run(running) })
	g.Go(func() error { return c.Run(running) })
	err = g.Wait()
	m.holding.now.Store(nil)
	m.holding.entries.Store(nil)
	if err != nil {
		return err
	}
	// So that the others need not wait until they notice.
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancel()
	if err := sessions.End(leave, info.ID); err != nil {
		slog.Warn("node: the queues in memory are left to the others by time", "err", err)
	}
	return nil
}

// holders are the ways to the machines that hold queues in memory; it is client.Holders.
type holders struct {
	keys    *trust.Keyring
	dialled *rpc.Conns
	here    func() *cache.Holder // this machine's entries of the cache; nil: it has none

	mu    sync.Mutex
	ways  map[string]*metarpc.Client // by name and address; guarded by mu, as below
	lines map[string]*rpc.Client
}

func newHolders(keys *trust.Keyring, dialled *rpc.Conns) *holders {
	return &holders{keys: keys, dialled: dialled, ways: make(map[string]*metarpc.Client), lines: make(map[string]*rpc.Client)}
}

func (h *holders) dial(to queue.Holder, conns int) (*rpc.Client, error) {
	return rpc.Dial(to.Addr, rpc.ClientConfig{TLS: h.keys.ClientConfig(to.Node, protoCalls), Conns: conns, Among: h.dialled})
}

// Holder is client.Holders'.
func (h *holders) Holder(to queue.Holder) (client.Sender, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := to.Node + " " + to.Addr
	if h.ways[key] == nil {
		h.ways[key] = metarpc.NewMemoryClient(func(string) (*rpc.Client, error) { return h.dial(to, 1) }, to.Addr)
	}
	return h.ways[key], nil
}

// Line is cache.Lines'.
func (h *holders) Line(to truth.Member) (cache.Line, error) {
	return h.line(queue.Holder{Session: to.Session, Node: to.Node, Addr: to.Addr}, followConns)
}

// line is the way by which a machine follows.
func (h *holders) line(to queue.Holder, conns int) (*rpc.Client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := to.Node + " " + to.Addr
	if l := h.lines[key]; l != nil {
		return l, nil
	}
	l, err := h.dial(to, conns)
	if err == nil {
		h.lines[key] = l
	}
	return l, err
}

func (h *holders) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, way := range h.ways {
		way.Close()
	}
	for _, l := range h.lines {
		l.Close()
	}
}

// holdAll has an embedded cluster hold all its queues in memory, and all entries of the
// cache, in this process.
func (e *Embedded) holdAll(id meta.SessionID) (err error) {
	always := func() bool { return true }
	queues := metamemory.New(metamemory.Config{
		Session: id, Node: nodeName, Addr: "-", Meta: e.meta.Session(id), Valid: always,
	})
	e.holding.now.Store(queues)
	e.caching, err = newCaching(filepath.Join(e.data.path, "cache"), cache.Config{
		Session: id, Node: nodeName, Addr: "-", Meta: e.meta.Session(id), Valid: always,
	}, queues, (&lastMap{members: client.Members{Caller: e.meta}}).get)
	if err == nil {
		e.holding.entries.Store(e.caching.Holder)
	}
	return err
}
