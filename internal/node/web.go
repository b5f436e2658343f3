package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"

	"dos/chunk/stripe"
	"dos/fuse/vfs"
	"dos/meta"
	"dos/meta/client"
)

// filesAt puts the handler of files at its paths.
func filesAt(mux *http.ServeMux, h http.Handler) {
	mux.Handle("/fs/", h)
	mux.Handle("/webhdfs/", h)
}

// changed tells the mount of a change that did not come through it.
func (e *Embedded) changed(dir meta.Ino, name string, ino meta.Ino) {
	if s := e.shown.Load(); s != nil {
		s.Changed(dir, name, ino)
	}
}

// A lazyTree is the stored tree without a mount. Nothing is opened before the first
// who asks, since most machines have nobody who does.
type lazyTree struct {
	wanted chan struct{} // closed by the first

	mu      sync.Mutex
	asked   bool          // guarded by mu, as all below
	tree    *vfs.FS       // nil: there is none now
	changed chan struct{} // closed when tree is set
}

func newLazyTree() *lazyTree {
	return &lazyTree{wanted: make(chan struct{}), changed: make(chan struct{})}
}

// await returns the tree, for which it waits for at most reachWait.
func (l *lazyTree) await(ctx context.Context) (*vfs.FS, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reachWait, fmt.Errorf("the tree cannot be reached: %w", meta.Unavailable))
	defer cancel()
	for {
		l.mu.Lock()
		if !l.asked {
			l.asked = true
			close(l.wanted)
		}
		tree, changed := l.tree, l.changed
		l.mu.Unlock()
		if tree != nil {
			return tree, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// set says what the tree is; nil: there is none any more.
func (l *lazyTree) set(tree *vfs.FS) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tree = tree
	if tree != nil {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// serveFiles has a tree for who asks for files by HTTP until ctx ends.
func (m *Machine) serveFiles(ctx context.Context) error {
	select {
	case <-m.files.wanted:
	case <-ctx.Done():
		return nil
	}
	return insist(ctx, "files by HTTP", func(ctx context.Context) error {
		reach, cancel := context.WithTimeout(ctx, reachWait)
		defer cancel()
		if err := awaitGroups(reach, m.fleet); err != nil {
			return fmt.Errorf("%w: %w", meta.Unavailable, err)
		}
		return m.runFiles(ctx)
	})
}

// webDirty is the memory in bytes that data takes that is not stored yet: a body is stored
// before it is answered, so more would only let more of them wait.
const webDirty = 64 << 20

// runFiles opens a session and has a tree under it.
func (m *Machine) runFiles(ctx context.Context) error {
	here, err := client.NewPresence(ctx, m.service, "dosd http", m.data.node)
	if err != nil {
		return err
	}
	path, err := stripe.New(stripe.Config{Cluster: m.fleet, IDs: client.Session{Caller: here}, Disk: m.fleet.Disk, Changed: m.fleet.Changed})
	if err != nil {
		return err
	}
	t := tree{vfs.New(vfs.Config{Meta: client.Files{Caller: here}, Data: path, Leases: here, Dirty: webDirty}), path}
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return here.Run(below, t) })
	g.Go(func() error { return advance(below, path, here) })
	above, stopTree := context.WithCancel(ctx)
	defer stopTree()
	context.AfterFunc(below, stopTree) // when something fails
	m.files.set(t.FS)
	err = t.Run(above)
	m.files.set(nil)
	stop()
	err = errors.Join(err, g.Wait())
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	if e := errors.Join(path.Close(leave), here.End(leave)); e != nil {
		slog.Warn("node: leaving", "err", e)
	}
	return err
}

// A tree is the user of a session that has files open and nothing else.
type tree struct {
	*vfs.FS
	path *stripe.Path
}

// Fenced implements client.User.
func (t tree) Fenced() {
	t.path.Forget()
	t.FS.Fenced()
}
