package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"dos/chunk"
	"dos/chunk/repair"
	"dos/meta"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// Status says how safe what is stored is; it implements cluster.Cluster.
func (e *Embedded) Status(ctx context.Context) (cluster.Status, error) {
	member, err := e.meta.Replica().Status()
	if err != nil {
		return cluster.Status{}, err
	}
	s := cluster.Status{
		Name: nodeName, Version: Version(), Since: meta.At(e.started), Now: meta.At(time.Now()),
		Meta:   cluster.Metadata{Leader: member.Leader, Members: len(member.Members), Alive: 1, Term: member.Term, Applied: member.Applied},
		Stores: e.stores.status(),
		Dirty:  e.tree.Dirty(),
		Lacks:  lacking(e.data.path),
	}
	records, corrupt, finished := e.stores.scrubbed()
	s.Scrub = cluster.Scrub{Done: records, Total: shards(s.Stores), Bad: corrupt}
	if !finished.IsZero() {
		s.Scrub.Finished = meta.At(finished)
	}
	e.upkeep.status(ctx, &s)
	return s, nil
}

// codeOf says which code a large stripe is written with while so many stores
// live; nothing if none can be written.
func codeOf(want chunk.Code, live int) string {
	if live <= int(want.M) {
		return ""
	}
	return chunk.Code{K: uint8(min(int(want.K), live-int(want.M))), M: want.M}.String()
}

// spare is how many of the stores may be lost from now on without loss of data:
// of all, some live, and how the stripes are.
func spare(want chunk.Code, all, live int, r repair.Status) int {
	n := int(want.M)
	switch {
	case r.Lost > 0 || r.Endangered > 0:
		return 0
	case r.Complete: // what is away, if anything is, was rebuilt elsewhere
	case r.Degraded > 0 || r.Queued > 0 || r.LastFull.IsZero(): // something is missing where a store lives
		n = min(n-(all-live), n-1)
	default: // it is being looked whether all is still there
		n -= all - live
	}
	return max(0, min(n, live-1))
}

// Log and Since implement cluster.Cluster.
func (e *Embedded) Log() []cluster.Event { return e.events.Log() }

func (e *Embedded) Since(ctx context.Context, after uint64) ([]cluster.Event, error) {
	return e.events.Since(ctx, after)
}

// Names and Node implement nodes.Nodes: there is one machine, this one.
func (e *Embedded) Names(context.Context) ([]string, error) { return []string{nodeName}, nil }

func (e *Embedded) Node(ctx context.Context, name string) (nodes.Node, error) {
	if name != nodeName {
		return nodes.Node{}, meta.NotExist
	}
	now := meta.At(time.Now())
	n := nodes.Node{
		Name: nodeName, State: "up", Roles: []string{"meta", "chunk", "mount"}, Version: Version(),
		Since: meta.At(e.started), Seen: now, Now: now, Lacks: lacking(e.data.path),
	}
	n.Load, n.Memory = loadAndMemory()
	n.Disks = e.stores.disks()
	known, err := e.known.get(ctx)
	for _, one := range known.Nodes {
		said(&n, one)
	}
	return n, err
}

// Remove forgets nobody: there is no other machine.
func (e *Embedded) Remove(context.Context, string) error { return errOneMachine }

// loadAndMemory are those of this machine. What cannot be read is zero.
func loadAndMemory() (nodes.Load, nodes.Memory) {
	load, memory, err := nodes.ReadProc("/proc")
	if err != nil {
		slog.Debug("node: how busy the machine is", "err", err)
	}
	return load, memory
}

// gaugeEvery is how old a reading of a gauge may be.
const gaugeEvery = 500 * time.Millisecond

// A gauge tells how busy this machine is. Every other machine asks each second, and
// every mount: what one of them is told is good for all who ask in the same moment.
type gauge struct {
	mu     sync.Mutex
	read   time.Time // guarded by mu, as all below
	load   nodes.Load
	memory nodes.Memory
}

func (g *gauge) loadAndMemory() (nodes.Load, nodes.Memory) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.Sub(g.read) >= gaugeEvery {
		g.load, g.memory = loadAndMemory()
		g.read = now
	}
	return g.load, g.memory
}

func shards(stores []cluster.Store) (n int64) {
	for _, s := range stores {
		n += s.Shards
	}
	return n
}
