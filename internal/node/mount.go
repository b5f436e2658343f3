package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/fuse"
	"dos/fuse/vfs"
	"dos/internal/access"
	"dos/internal/cache"
	"dos/internal/metrics"
	"dos/internal/rights"
	"dos/internal/tasktree"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/task"
	"dos/procfs"
	caches "dos/procfs/cache"
	"dos/procfs/cluster"
	"dos/procfs/kv"
	"dos/procfs/locks"
	"dos/procfs/nodes"
	"dos/procfs/queues"
	"dos/procfs/rpc"
	"dos/procfs/tasks"
)

const (
	// unmountWait is how long a clean stop waits for users of the mount before it
	// detaches it, and tasksWait if tasks go on, which use it until they end.
	unmountWait = 10 * time.Second
	tasksWait   = time.Second
)

// MountConfig says what dosmount mounts. The zero value of an optional field
// means the default named beside it.
type MountConfig struct {
	Data       string     // the data directory of an embedded cluster; made if missing
	Code       chunk.Code // of a new one; 4+2
	Cluster    []string   // addresses of machines of a cluster; none: an embedded one
	Identity   string     // the file that proves to a cluster who this is
	MountPoint string
	Subtree    string // the directory that is mounted, alone; empty: the whole, with the special directories
	Options    fuse.Options
	Debug      string // an address to serve profiles and metrics on; none
	Redis      string // an address to speak the protocol of Redis on, embedded; none
	HTTP       string // an address to speak plain HTTP on, embedded; none
	Ready      func() // called once the mount is usable
	// Tasks has an embedded cluster run tasks. The program calls Started.
	Tasks bool

	runner *runnerConfig // of the machine that mounts; nil: no tasks run for it
}

// Mount mounts a cluster, or runs an embedded one and mounts it, until ctx ends
// or it is unmounted. Then it stores what is not stored yet and stops cleanly.
func Mount(ctx context.Context, c MountConfig) error {
	if len(c.Cluster) == 0 {
		awaitGoing(ctx, c.Data)
	} else {
		awaitGoing(ctx, pointDir(c.MountPoint))
	}
	if err := fuse.CheckPoint(c.MountPoint, c.Options, slog.Default()); err != nil {
		return err
	}
	if len(c.Cluster) > 0 {
		return mountCluster(ctx, c)
	}
	return mountEmbedded(ctx, c)
}

func mountEmbedded(ctx context.Context, c MountConfig) (err error) {
	e, err := openEmbedded(ctx, embeddedConfig{data: c.Data, code: c.Code, create: true, sync: c.Options.Sync})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	redis, err := listenFor("--redis", c.Redis)
	if err != nil {
		return err
	}
	web, err := listenFor("--http", c.HTTP)
	if err != nil {
		return err
	}

	// What e is made of runs until the mount is gone.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return e.Run(running) })
	g.Go(func() error { return e.serveAdmin(running) })
	if c.Debug != "" {
		g.Go(func() error { return serveDebug(running, c.Debug, e, e.meta) })
	}
	g.Go(func() error {
		defer stop()
		if err := e.stores.Ready(running); err != nil {
			return err
		}
		if redis != nil {
			g.Go(func() error { return e.serveRedis(running, redis) })
		}
		if web != nil {
			g.Go(func() error { return serveWeb(running, web, client.Trust{Caller: e.meta}, e.site) })
		}
		all := client.Members{Caller: e.meta}
		f := front{
			tree: e.tree, locks: e.locks, named: e.named, queues: e.queues, cache: e.cache, dialer: e.dialer, calls: e.calls, sees: e, node: nodeName, members: all,
			admin:    nodesAdmin{members: all, remove: e.Remove, refresh: func(context.Context) error { return nil }},
			services: e.meta.Session(e.session),
			session:  func() meta.SessionID { return e.session }, broken: e.broken,
		}
		if c.Tasks && c.Subtree == "" {
			f.runner = &runnerConfig{Data: e.data.path, Embedded: true, Offer: offerOf(nodeName, nil, task.Resources{}), Version: Version()}
		}
		f.served = e.shown.Store
		f.mounted = func(point string) {
			e.events.Add("mounted at %s", point)
			if err := noteHolder(e.data.lock, point); err != nil {
				slog.Warn("node: a start right after the end of this one will be refused", "err", err)
			}
		}
		return f.serve(ctx, running, c)
	})
	return g.Wait()
}

// A front is what a mount shows.
type front struct {
	tree    *vfs.FS
	locks   fuse.Locks // of files
	named   *client.Named
	queues  *client.Taker
	cache   *cache.Client
	dialer  *client.Dialer
	calls   *client.Server
	sees    sight
	admin   nodes.Admin
	members client.Members
	// near says which machines have what of a file; nil: there is one.
	near func(context.Context, meta.Ino) (map[string]int64, error)
	// services executes what the special directories ask for, for the mount's session.
	services client.Caller
	node     string // the machine that serves the mount, by name
	session  func() meta.SessionID
	broken   <-chan error       // why the mount cannot go on
	mounted  func(string)       // called once the mount is usable, with its path
	served   func(*fuse.Server) // called before that with what serves it; optional
	runner   *runnerConfig      // of the machine's tasks; nil: none run here
	fence    fuse.Fence         // of these; nil: what runs here is dead before it runs elsewhere
	last     cluster.LastError
}

// serve mounts, and returns when the mount is gone: when ctx ends, what it
// stands on (running) does, or somebody unmounts it.
func (f *front) serve(ctx, running context.Context, c MountConfig) error {
	cfg := fuse.Config{MountPoint: c.MountPoint, FS: f.tree, Locks: f.locks, Fence: f.fence, Options: c.Options, Failed: f.last.Record}
	if c.Subtree != "" {
		root, err := directory(ctx, f.tree, c.Subtree)
		if err != nil {
			return fmt.Errorf("--subtree %s: %w", c.Subtree, err)
		}
		cfg.Root = root
	} else {
		all := client.Tasks{Caller: f.services}
		owner := uint32(os.Geteuid()) // the administrator of a mount is who runs it
		cfg.Special = &procfs.Mux{}
		cfg.Special.Mount("cluster", cluster.New(cluster.Parts{
			Cluster: f.sees, Settings: settings{f.members, &lastMap{members: f.members}}, Metrics: metrics.New(f.sees, all.Status).Text, Owner: owner,
			Self: cluster.Self{Node: f.node, Session: f.session, Error: &f.last, Locks: func() string { return locksText(f.named) }, Tasks: tasksOf(all)},
		}))
		cfg.Special.Mount("locks", locks.New(f.named, f.node))
		cfg.Special.Mount("nodes", nodes.New(f.sees, f.admin, tasksOn(all), owner))
		steps := queues.Steps{Queues: f.queues}
		cfg.Special.Mount("kv", kv.New(client.KV{Caller: f.services}, map[string]kv.Verb{
			"fence": {Allow: kv.Anyone},
			"push":  {Allow: steps.Push}, "send": {Allow: steps.Send}, "ack": {Allow: steps.Ack, Done: steps.Acked},
		}))
		cfg.Special.Mount("queues", queues.New(f.queues, f.node))
		cfg.Special.Mount("cache", caches.New(f.cache))
		cfg.Special.Mount("rpc", rpc.New(f.dialer, f.calls, f.node))
		point, err := filepath.Abs(c.MountPoint)
		if err != nil {
			return err
		}
		cfg.Special.Mount("tasks", tasks.New(all, tasktree.New(tasktree.Config{FS: f.tree, Mount: resolve(point), Near: f.near}), owner))
	}
	server, err := fuse.Mount(ctx, cfg)
	if err != nil {
		return err
	}
	if f.served != nil {
		f.served(server)
	}
	f.mounted(server.MountPoint())
	if c.Ready != nil {
		c.Ready()
	}
	gone := make(chan struct{})
	go func() { // ends when the mount does, which Unmount brings about below
		server.Wait()
		close(gone)
	}()
	leave := func() {}
	if f.runner != nil {
		f.runner.Mount = server.MountPoint()
		leave = beginRunner(running, *f.runner)
	}
	var broken error
	select {
	case <-gone:
		leave()
		return nil
	case <-ctx.Done():
	case <-running.Done():
	case broken = <-f.broken:
		slog.Error("node: cannot go on", "err", broken)
	}
	leave() // before the tree is away
	wait := unmountWait
	if f.runner != nil && heldRunDir(f.runner.dir()) {
		wait = tasksWait
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	err = server.Unmount(deadline)
	if errors.Is(err, fuse.ErrBusy) { // what it has is stored all the same
		slog.Warn("node: the mount was in use", "err", err)
		err = nil
	}
	return errors.Join(broken, err)
}

// directory finds a directory of the stored tree by its path from the root.
func directory(ctx context.Context, tree *vfs.FS, path string) (meta.Ino, error) {
	ino := meta.Root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		a, err := tree.Lookup(ctx, ino, name)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q: %w", name, err)
		case !a.IsDir():
			return 0, fmt.Errorf("%q: %w", name, meta.NotDir)
		}
		ino = a.Ino
	}
	return ino, nil
}

// serveAdmin answers dosctl until ctx ends.
func (e *Embedded) serveAdmin(ctx context.Context) error {
	l, err := e.data.listen()
	if err != nil {
		return err
	}
	remove, err := announce(e.data.path)
	if err != nil {
		slog.Warn("node: dosctl will need --data", "err", err)
		remove = func() error { return nil }
	}
	err = serveHTTP(ctx, l, e.site(access.Named))
	return errors.Join(err, remove(), os.Remove(e.data.sock()))
}

// serveDebug serves profiles of the process and metrics of what it sees until ctx ends.
func serveDebug(ctx context.Context, addr string, sees metrics.Source, caller client.Caller) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("--debug: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics.New(sees, client.Tasks{Caller: caller}.Status).Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return serveHTTP(ctx, l, mux)
}

// idleConn is how long a connection is kept that nothing is asked over.
const idleConn = 2 * time.Minute

// serveHTTP serves until ctx ends; requests under way end with it.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleConn, ConnContext: rights.Conn,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { server.Close(); close(closed) })
	err := server.Serve(l)
	if stop() {
		return err // it failed by itself
	}
	<-closed
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
