// Package fleet is the machines of a cluster as one process sees them: which
// there are, which of them answer, and the stores on them. It owns the
// connections to them and asks each every second how it is. A machine that has
// not answered for two seconds is taken for gone, and the calls to its stores
// that are under way end: one that hangs is passed over like one that is dead.
// What the package says is this process's own view, a second old while all is
// well; the truth about who belongs to the cluster is the metadata service's.
package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/members"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// A Peer is the way to one machine. Its methods may be called concurrently.
type Peer interface {
	// State asks the machine how it is.
	State(ctx context.Context) (nodes.Node, error)
	// Store is one of the machine's stores.
	Store(id chunk.StoreID) chunk.Store
	// Close ends the connections; calls under way fail.
	Close()
}

// Config says what a Fleet works with. All of it is required but what says otherwise.
type Config struct {
	// Map asks the metadata service for the map if it has changed since an epoch.
	Map func(ctx context.Context, since uint64) (members.Map, error)
	// Dial makes a Peer. It does not connect yet.
	Dial func(node members.Node) (Peer, error)
	// Self is the name of this machine, if it is one of the fleet, and Local its
	// own stores, which are not asked through a connection; optional.
	Self  string
	Local func(id chunk.StoreID) (s chunk.Store, up bool)
	// Every is the pause between two looks at everything; a second.
	Every time.Duration
	Log   *slog.Logger // slog.Default()
}

const (
	defaultEvery = time.Second
	// answerWait is how long a machine may take to say how it is. It is asked for
	// nothing that takes time: one that is slower serves nobody well.
	answerWait = 2 * time.Second
)

// A Fleet is the machines. Its methods may be called concurrently, Run once.
type Fleet struct {
	cfg Config

	updating sync.Mutex // so that an older map does not come after a newer one

	mu      sync.RWMutex
	now     members.Map // guarded by mu, as all below
	stores  map[chunk.StoreID]*store
	nodes   map[string]*machine // by name; this machine is not among them
	changed chan struct{}       // closed at the next change, and replaced
	read    bool                // the map has been read
	known   bool                // and every machine in it has been asked once
}

// A machine is one of the others.
type machine struct {
	node  members.Node // guarded by Fleet.mu
	peer  Peer         // nil if there is no way to it
	calls *calls       // to its stores
	last  nodes.Node   // what it said last; guarded by Fleet.mu
	seen  time.Time    // when; guarded by Fleet.mu
	up    bool         // it answered when it was asked last; guarded by Fleet.mu
	why   error        // if not; guarded by Fleet.mu
	asked bool         // guarded by Fleet.mu
	busy  bool         // it is being asked; guarded by Fleet.mu
}

type store struct {
	member   members.Store
	standing members.Standing
	at       *machine    // nil: on this machine
	remote   chunk.Store // nil on this machine, or if there is no way to it
}

// New returns a Fleet that knows nobody yet.
func New(c Config) *Fleet {
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Fleet{cfg: c, stores: make(map[chunk.StoreID]*store), nodes: make(map[string]*machine), changed: make(chan struct{})}
}

// Run looks after the machines until ctx ends. Nobody waits for a machine that
// is slow to answer, nor all of them for the map.
func (f *Fleet) Run(ctx context.Context) error {
	defer f.closeAll()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		f.repeat(ctx, func() {
			if err := f.update(ctx); err != nil && ctx.Err() == nil {
				f.cfg.Log.Debug("fleet: the map is not known", "err", err)
			}
			f.askAll(ctx, &wg, true)
		})
	})
	f.repeat(ctx, func() { f.askAll(ctx, &wg, false) })
	return nil
}

// repeat calls do at once and then regularly until ctx ends.
func (f *Fleet) repeat(ctx context.Context, do func()) {
	tick := time.NewTicker(f.cfg.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (f *Fleet) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.nodes {
		m.close()
		m.up = false
	}
}

// close ends the way to a machine. Fleet.mu is held.
func (m *machine) close() {
	if m.peer != nil {
		m.peer.Close()
	}
}

// askAll asks each machine how it is, or each that is new.
func (f *Fleet) askAll(ctx context.Context, wg *sync.WaitGroup, fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.nodes {
		if m.busy || m.peer == nil || fresh && m.asked || ctx.Err() != nil {
			continue
		}
		m.busy = true
		wg.Go(func() { f.ask(ctx, m) })
	}
}

// Refresh takes in the map if it has changed: whoever changed it will look at it.
func (f *Fleet) Refresh(ctx context.Context) error { return f.update(ctx) }

// update takes in the map if it has changed.
func (f *Fleet) update(ctx context.Context) error {
	f.updating.Lock()
	defer f.updating.Unlock()
	f.mu.RLock()
	epoch := f.now.Epoch
	f.mu.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	now, err := f.cfg.Map(ctx, epoch)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.settle()
	f.read = true
	if now.Epoch == f.now.Epoch {
		return nil
	}
	f.meet(now.Nodes)
	f.now = now
	standing := members.Standings(now.Stores, now.Nodes)
	stores := make(map[chunk.StoreID]*store, len(now.Stores))
	for _, member := range now.Stores {
		s := &store{member: member, standing: standing[member.ID], at: f.nodes[member.Node]}
		if s.at != nil && s.at.peer != nil {
			s.remote = guarded{member.ID, s.at.calls, s.at.peer.Store(member.ID)}
		}
		stores[member.ID] = s
	}
	f.stores = stores
	f.tell()
	return nil
}

// settle notes when everything is known for the first time. f.mu is held.
func (f *Fleet) settle() {
	if f.known || !f.read {
		return
	}
	for _, m := range f.nodes {
		if !m.asked {
			return
		}
	}
	f.known = true
	f.tell()
}

// meet makes the machines those of the list. One to which there is no way does
// not answer; the others are met all the same. f.mu is held.
func (f *Fleet) meet(list []members.Node) {
	left := maps.Clone(f.nodes)
	for _, node := range list {
		if node.Name == f.cfg.Self {
			continue
		}
		old := f.nodes[node.Name]
		delete(left, node.Name)
		if old != nil && old.node.Addr == node.Addr {
			old.node = node
			continue
		}
		if old != nil {
			old.close()
		}
		m := &machine{node: node, calls: new(calls)}
		f.nodes[node.Name] = m
		peer, err := f.cfg.Dial(node)
		if err != nil {
			m.why, m.asked = err, true
			f.cfg.Log.Error("fleet: there is no way to a machine", "node", node.Name, "addr", node.Addr, "err", err)
			continue
		}
		m.peer = peer
	}
	for name, m := range left {
		m.close()
		delete(f.nodes, name)
	}
}

// ask asks one machine how it is.
func (f *Fleet) ask(ctx context.Context, m *machine) {
	deadline, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	state, err := m.peer.State(deadline)
	f.mu.Lock()
	defer f.mu.Unlock()
	m.busy = false
	if ctx.Err() != nil || f.nodes[m.node.Name] != m {
		return
	}
	defer f.settle()
	if err == nil && state.Name != m.node.Name {
		err = fmt.Errorf("machine %s answers at %s, where %s should: %w", state.Name, m.node.Addr, m.node.Name, meta.Conflict)
	}
	was, first := m.up, !m.asked
	m.up, m.why, m.asked = err == nil, err, true
	m.calls.answers(m.up)
	switch {
	case err == nil:
		if !slices.EqualFunc(m.last.Disks, state.Disks, sameState) || !was {
			defer f.tell()
		}
		m.last, m.seen = state, time.Now()
		if !was && !first {
			f.cfg.Log.Info("fleet: a machine is back", "node", m.node.Name)
		}
	case was || first:
		f.cfg.Log.Warn("fleet: a machine does not answer", "node", m.node.Name, "addr", m.node.Addr, "err", err)
		defer f.tell()
	}
}

// sameState leaves out how full a disk is, which changes all the time.
func sameState(a, b nodes.Disk) bool { return a.ID == b.ID && a.State == b.State }

// tell wakes who waits for a change. f.mu is held.
func (f *Fleet) tell() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change: of the map, of
// who answers, of the state of a store.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed
}

// Ready returns when the map is known and every machine has been asked once.
func (f *Fleet) Ready(ctx context.Context) error {
	for {
		f.mu.RLock()
		known, changed := f.known, f.changed
		f.mu.RUnlock()
		if known {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Map is the map as it was read last.
func (f *Fleet) Map() members.Map {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now
}

// Store implements Cluster of chunk/stripe and chunk/repair: a store lives if
// its machine answers and says that it is in use.
func (f *Fleet) Store(id chunk.StoreID) (chunk.Store, bool) {
	f.mu.RLock()
	s := f.stores[id]
	local := s != nil && s.at == nil && s.member.Node == f.cfg.Self
	live := s != nil && s.at != nil && s.at.up && up(s.at.last, id)
	f.mu.RUnlock()
	switch {
	case s == nil:
		return nil, false
	case local && f.cfg.Local != nil:
		return f.cfg.Local(id)
	}
	return s.remote, live
}

func up(n nodes.Node, id chunk.StoreID) bool {
	return slices.ContainsFunc(n.Disks, func(d nodes.Disk) bool {
		return chunk.StoreID(d.ID) == id && (d.State == cluster.Up || d.State == cluster.Rebuilding)
	})
}

// Leaving implements chunk/repair's Leaver: whether what a store has is to be
// moved off. Out says that the store is not waited for.
func (f *Fleet) Leaving(id chunk.StoreID) (leaving, out bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := f.stores[id]
	if s == nil {
		return false, false
	}
	return s.standing != members.In, s.standing == members.Out
}

// Answers reports whether a machine does; this one does.
func (f *Fleet) Answers(name string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.nodes[name]
	return m != nil && m.up || name == f.cfg.Self
}

// Stores implements Cluster.
func (f *Fleet) Stores() []chunk.StoreID {
	f.mu.RLock()
	defer f.mu.RUnlock()
	ids := make([]chunk.StoreID, len(f.now.Stores))
	for i, s := range f.now.Stores {
		ids[i] = s.ID
	}
	return ids
}

// Group implements Cluster.
func (f *Fleet) Group(id chunk.StripeID) chunk.Group {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.now.Groups) == 0 {
		return chunk.Group{}
	}
	return f.now.Groups[chunk.GroupOf(id)]
}

// Code implements Cluster.
func (f *Fleet) Code() chunk.Code {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now.Code
}

// Node describes a machine other than this one: what it said last, and whether
// it answers now. NotExist if there is none of that name.
func (f *Fleet) Node(name string) (nodes.Node, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.nodes[name]
	if m == nil {
		return nodes.Node{}, meta.NotExist
	}
	n := m.last
	n.Name, n.Addr, n.Zone, n.Now = m.node.Name, m.node.Addr, m.node.Zone, meta.At(time.Now())
	n.State = cluster.Up
	if !m.up {
		n.State = cluster.Down
	}
	if !m.seen.IsZero() {
		n.Seen = meta.At(m.seen)
	}
	return n, nil
}

// Peer is the way to a machine, or nil if there is none of that name.
func (f *Fleet) Peer(name string) Peer {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if m := f.nodes[name]; m != nil {
		return m.peer
	}
	return nil
}

// Disk names the file system that a store lies on.
func (f *Fleet) Disk(id chunk.StoreID) string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if s := f.stores[id]; s != nil && s.at != nil {
		for _, d := range s.at.last.Disks {
			if chunk.StoreID(d.ID) == id && d.Device != 0 {
				return fmt.Sprintf("device %d of %s", d.Device, s.member.Node)
			}
		}
	}
	return fmt.Sprintf("store %d", id)
}
