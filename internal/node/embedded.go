// Package node is one machine: its roles put together from the rooms that do
// the work. A Machine is one of a cluster, behind one TLS port (dosd). Embedded
// is a whole cluster in one process, a metadata member and K+M chunk stores that
// call each other directly. Mount shows either to the kernel. The socket in the
// data directory, and the port, are the administrator's doors. The package knows
// how the rooms fit together and nothing of what they do.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/fuse"
	"dos/fuse/vfs"
	"dos/internal/cache"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/meta/members"
	"dos/meta/namespace"
	metanode "dos/meta/node"
	"dos/meta/replica"
	"dos/procfs/cluster"
)

// nodeName is the name of the one machine of an embedded cluster.
const nodeName = "local"

// An Embedded is a cluster in this process. Open makes it, Run does its work.
type Embedded struct {
	data    *dataDir
	meta    *metanode.Node
	stores  *stores
	whole   whole // the stores as the cluster that they are
	session meta.SessionID
	*upkeep // of the session
	tree    *vfs.FS
	locks   *client.Locker // of files
	named   *client.Named
	queues  *client.Taker
	dialer  *client.Dialer
	calls   *client.Server
	known   *lastMap // of this one machine
	holding holding  // of queues in memory and entries of the cache
	caching *caching
	cache   *cache.Client
	shown   atomic.Pointer[fuse.Server] // nil before it is mounted

	events  *cluster.Journal
	started time.Time
	broken  chan error // the reason why the process must end; buffered
}

// embeddedConfig says how to open an embedded cluster.
type embeddedConfig struct {
	data    string
	code    chunk.Code // of a new one; zero: 4+2, or what there is
	create  bool
	salvage bool // of the metadata's log; see replica.Config
	sync    bool // every write is stored before it returns
}

// openEmbedded opens the metadata and everything that works on it. The stores
// are opened by Run.
func openEmbedded(ctx context.Context, c embeddedConfig) (_ *Embedded, err error) {
	e := &Embedded{events: new(cluster.Journal), started: time.Now(), broken: make(chan error, 1)}
	if e.data, err = openData(c.data, c.code, c.create); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	e.meta, err = metanode.Open(replica.Config{
		Dir: e.data.meta(), ID: nodeName, Bootstrap: true, Salvage: c.salvage,
		Fatal: e.fail,
	})
	if err != nil {
		return nil, fmt.Errorf("metadata in %s: %w", e.data.meta(), err)
	}
	restored, err := e.data.wasRestored()
	if err != nil {
		return nil, err
	}
	if restored || c.salvage {
		if err := skipStripes(ctx, e.meta); err != nil {
			return nil, err
		}
	}
	if restored {
		if err := e.data.forgetRestored(); err != nil {
			return nil, err
		}
	}
	e.known = &lastMap{members: client.Members{Caller: e.meta}}
	if err := e.register(ctx); err != nil {
		return nil, err
	}
	if e.session, err = e.begin(ctx); err != nil {
		return nil, err
	}
	e.upkeep, err = newUpkeep(e.whole, e.meta.Session(e.session), e.stores.disk)
	if err != nil {
		return nil, err
	}
	e.stores.repaired = func() bool { return e.repair.Status().Complete }
	e.stores.changed = e.repair.Notify
	e.stores.corrupt = e.repair.Damaged
	if e.locks, err = ownLocks(ctx); err != nil {
		return nil, err
	}
	here := client.Always(e.meta.Session(e.session), e.session)
	e.named = client.NewNamed(here)
	if err = e.holdAll(e.session); err != nil {
		return nil, err
	}
	e.cache = cache.NewClient(cache.ClientConfig{Meta: e.meta.Session(e.session), Here: e.holding.entries.Load})
	e.queues = client.NewTaker(client.NewRouter(here, &e.holding), e.path)
	ways := &exchanges{name: nodeName, own: new(exchange.Exchange)}
	e.dialer, e.calls = client.NewDialer(here, ways, nodeName), client.NewServer(here, ways, nodeName)
	e.tree = vfs.New(vfs.Config{Meta: e.files, Data: fileData{e.path, e.meta.Replica()}, Sync: c.sync})
	return e, nil
}

// fail notes that the process must end. It does not block.
func (e *Embedded) fail(err error) {
	select {
	case e.broken <- err:
	default:
	}
}

// register makes the cluster if it is new and says what stores it has.
func (e *Embedded) register(ctx context.Context) error {
	m := client.Members{Caller: e.meta}
	if err := m.Init(ctx, e.data.cluster, e.data.code); err != nil {
		return err
	}
	if err := m.PutNode(ctx, members.Node{Name: nodeName}); err != nil {
		return err
	}
	root := namespace.Init{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if err := e.meta.Call(ctx, namespace.OpInit, root, nil); err != nil {
		return err
	}
	known, err := m.Map(ctx, 0)
	if err != nil {
		return err
	}
	list := known.Stores
	for i := len(list); i < e.data.code.Shards(); i++ {
		store, err := m.PutStore(ctx, members.Store{Node: nodeName, Ordinal: uint16(i)})
		if err != nil {
			return err
		}
		list = append(list, store)
	}
	if len(known.Groups) == 0 {
		if known, err = m.Arrange(ctx); err != nil {
			return err
		}
	}
	for i := range list {
		list[i].Path = e.data.store(i) // the directory may have been moved
	}
	e.stores, err = newStores(storesConfig{
		node: nodeName, cluster: e.data.cluster, members: m, events: e.events, data: e.data,
		losses: int(e.data.code.M), elsewhere: func() int { return 0 },
	}, list)
	e.whole = whole{e.stores, known.Groups, e.data.code}
	return err
}

// begin ends what sessions a crash left, and opens a new one. Those with a time to
// live are of other processes, which may be there, and end by themselves.
func (e *Embedded) begin(ctx context.Context) (meta.SessionID, error) {
	s := client.Session{Caller: e.meta}
	old, err := s.List(ctx)
	if err != nil {
		return 0, err
	}
	for _, info := range old {
		if info.TTL > 0 {
			continue
		}
		if err := s.End(ctx, info.ID); err != nil {
			return 0, err
		}
	}
	info, err := s.Open(ctx, "dosmount", nodeName, 0)
	return info.ID, err
}

// Run works until ctx ends: it keeps the stores open, repairs, folds, and
// writes back. What was written is stored before it returns; what could not be
// is its error.
func (e *Embedded) Run(ctx context.Context) error {
	// The tree stops first, on the services that it needs to store what it has.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return e.meta.Run(below) })
	g.Go(func() error { return e.stores.Run(below) })
	g.Go(func() error { return e.work(below) })
	g.Go(func() error { return e.locks.Run(below) })
	g.Go(func() error { return e.named.Run(below) })
	g.Go(func() error { return e.queues.Run(below) })
	g.Go(func() error { return e.calls.Run(below) })
	g.Go(func() error { return e.holding.now.Load().Run(below) })
	g.Go(func() error { return e.caching.Run(below) })
	g.Go(func() error { return e.cache.Run(below) })

	above, stopTree := context.WithCancel(ctx)
	defer stopTree()
	context.AfterFunc(below, stopTree) // when a service fails
	err := e.tree.Run(above)
	stop()
	return errors.Join(err, g.Wait())
}

// work begins when it is known which stores there are.
func (e *Embedded) work(ctx context.Context) error {
	if e.stores.Ready(ctx) != nil {
		return nil // it ends before it began
	}
	return e.upkeep.Run(ctx)
}

// whole is a cluster all of whose stores are on this machine.
type whole struct {
	*stores
	groups []chunk.Group
	code   chunk.Code
}

func (w whole) Stores() []chunk.StoreID {
	ids := make([]chunk.StoreID, len(w.list))
	for i, st := range w.list {
		ids[i] = st.member.ID
	}
	return ids
}

func (w whole) Group(id chunk.StripeID) chunk.Group { return w.groups[chunk.GroupOf(id)] }

func (w whole) Code() chunk.Code { return w.code }

// closeWait bounds how long Close waits for stores that hang.
const closeWait = 10 * time.Second

// Close ends the session and closes what is open. Run has returned.
func (e *Embedded) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	var errs []error
	if e.dialer != nil {
		e.dialer.Close()
	}
	if e.upkeep != nil {
		errs = append(errs, e.path.Close(ctx))
	}
	if e.named != nil {
		errs = append(errs, e.named.End(ctx))
	}
	if e.session != 0 {
		err := client.Session{Caller: e.meta}.End(ctx, e.session)
		if errors.Is(err, meta.NoSpace) {
			slog.Warn("node: the disk is full: the next start ends the session", "err", err)
			err = nil
		}
		errs = append(errs, err)
	}
	if e.meta != nil {
		errs = append(errs, e.meta.Close())
	}
	return errors.Join(append(errs, e.data.Close())...)
}
