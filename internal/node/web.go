package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"

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
