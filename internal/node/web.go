package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"dos/chunk/stripe"
	"dos/fuse/vfs"
	"dos/internal/access"
	"dos/internal/admin"
	"dos/internal/gateway/calls"
	"dos/internal/gateway/files"
	"dos/internal/gateway/passwords"
	"dos/internal/gateway/web"
	"dos/internal/rights"
	"dos/meta"
	"dos/meta/client"
)

// A site is what is at a port over HTTP for those of whom named says who they are.
type site func(named func(name string) (access.User, error)) http.Handler

// pages puts what there is together.
func pages(dialer *client.Dialer, tree files.Config, administration http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/rpc/", calls.Handler(dialer, tree.Named))
	h := files.Handler(tree)
	mux.Handle("/fs/", h)
	mux.Handle("/webhdfs/", h)
	mux.Handle("/", administration)
	return mux
}

// site is what is at the socket, and at a port for HTTP.
func (e *Embedded) site(named func(name string) (access.User, error)) http.Handler {
	return pages(e.dialer, files.Config{
		Scheme: "http", Named: named, Changed: e.changed, Tree: func(context.Context) (*vfs.FS, error) { return e.tree, nil },
	}, admin.Handler(admin.Services{
		Data: administration{e}, Meta: executor{e.meta, &e.holding, e.cache}, Access: embeddedAccess{client.Trust{Caller: e.meta}},
	}))
}

// webConns bounds how many speak plain HTTP at once, who may be nobody that is known; others
// wait.
const webConns = 4096

// serveWeb serves over plain HTTP on l what there is, until ctx ends.
func serveWeb(ctx context.Context, l net.Listener, records client.Trust, there site) error {
	defer l.Close()
	door, err := passwords.New(ctx, "--http", l.Addr(), passwordTokens{records})
	if err != nil {
		return err
	}
	slog.Info("node: HTTP is spoken", "addr", l.Addr())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return door.Run(ctx) })
	h := web.Handler(door, rights.Port, there(access.Named), there(access.Only(anonymous)))
	g.Go(func() error { return serveHTTP(ctx, netutil.LimitListener(l, webConns), h) })
	return g.Wait()
}

// serveWeb serves over plain HTTP, if that is asked for, what is at the machine's port, until
// ctx ends.
func (m *Machine) serveWeb(ctx context.Context) error {
	if m.web == nil {
		return nil
	}
	defer m.web.Close()
	return insist(ctx, "the port for HTTP", func(ctx context.Context) error {
		return serveWeb(ctx, m.web, client.Trust{Caller: m.service.anyone()}, m.site("http"))
	})
}

// site is what is at the port.
func (m *Machine) site(scheme string) site {
	return func(named func(name string) (access.User, error)) http.Handler {
		return pages(m.dialer, files.Config{Scheme: scheme, Named: named, Tree: m.files.await}, admin.Handler(m.adminServices()))
	}
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
	return m.visitAgain(ctx, "files by HTTP", "dosd http", func(v visit) (client.User, func(context.Context) error) {
		t := tree{vfs.New(vfs.Config{Meta: client.Files{Caller: v.here}, Data: v.path, Leases: v.here, Dirty: webDirty}), v.path}
		return t, func(ctx context.Context) error {
			m.files.set(t.FS)
			defer m.files.set(nil)
			return t.Run(ctx)
		}
	})
}

// webDirty is the memory in bytes that data takes that is not stored yet: a body is stored
// before it is answered, so more would only let more of them wait.
const webDirty = 64 << 20

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
