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
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/fuse"
	"dos/internal/admin"
	"dos/meta"
	"dos/procfs"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// unmountWait is how long a clean stop waits for users of the mount before it
// detaches it.
const unmountWait = 10 * time.Second

// MountConfig says what dosmount mounts. The zero value of an optional field
// means the default named beside it.
type MountConfig struct {
	Data       string     // the data directory; made if missing
	Code       chunk.Code // of a new one; 4+2
	MountPoint string
	Subtree    string // the directory that is mounted, alone; empty: the whole, with the special directories
	Options    fuse.Options
	Debug      string // an address to serve profiles on; none
	Ready      func() // called once the mount is usable
}

// Mount runs an embedded cluster and mounts it until ctx ends or it is
// unmounted. Then it stores what is not stored yet and stops cleanly.
func Mount(ctx context.Context, c MountConfig) (err error) {
	if err := fuse.CheckPoint(c.MountPoint, c.Options, slog.Default()); err != nil {
		return err
	}
	e, err := openEmbedded(ctx, embeddedConfig{data: c.Data, code: c.Code, create: true, sync: c.Options.Sync})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()

	// What e is made of runs until the mount is gone.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return e.Run(running) })
	g.Go(func() error { return e.serveAdmin(running) })
	if c.Debug != "" {
		g.Go(func() error { return serveDebug(running, c.Debug) })
	}
	g.Go(func() error {
		defer stop()
		return e.serveMount(ctx, running, c)
	})
	return g.Wait()
}

// serveMount mounts once the stores are open, and returns when the mount is gone.
func (e *Embedded) serveMount(ctx, running context.Context, c MountConfig) error {
	if err := e.stores.Ready(running); err != nil {
		return err
	}
	cfg := fuse.Config{MountPoint: c.MountPoint, FS: e.tree, Options: c.Options, Failed: e.last.Record}
	if c.Subtree != "" {
		root, err := e.directory(ctx, c.Subtree)
		if err != nil {
			return fmt.Errorf("--subtree %s: %w", c.Subtree, err)
		}
		cfg.Root = root
	} else {
		cfg.Special = &procfs.Mux{}
		cfg.Special.Mount("cluster", cluster.New(e, cluster.Self{Node: nodeName, Session: func() meta.SessionID { return e.session }, Error: &e.last}))
		cfg.Special.Mount("nodes", nodes.New(e))
	}
	server, err := fuse.Mount(ctx, cfg)
	if err != nil {
		return err
	}
	e.events.Add("mounted at %s", c.MountPoint)
	if c.Ready != nil {
		c.Ready()
	}
	gone := make(chan struct{})
	go func() { // ends when the mount does, which Unmount brings about below
		server.Wait()
		close(gone)
	}()
	var broken error
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	case <-running.Done():
	case broken = <-e.broken:
		slog.Error("node: cannot go on", "err", broken)
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmountWait)
	defer cancel()
	err = server.Unmount(deadline)
	if errors.Is(err, fuse.ErrBusy) { // what it has is stored all the same
		slog.Warn("node: the mount was in use", "err", err)
		err = nil
	}
	return errors.Join(broken, err)
}

// directory finds a directory of the stored tree by its path from the root.
func (e *Embedded) directory(ctx context.Context, path string) (meta.Ino, error) {
	ino := meta.Root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		a, err := e.tree.Lookup(ctx, ino, name)
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
	err = serveHTTP(ctx, l, admin.Handler(administration{e}))
	return errors.Join(err, remove(), os.Remove(e.data.sock()))
}

func serveDebug(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("--debug: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return serveHTTP(ctx, l, mux)
}

// serveHTTP serves until ctx ends; requests under way end with it.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second,
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
