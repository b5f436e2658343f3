package vfs

import (
	"context"
	"errors"
	"syscall"

	"dos/meta"
)

// Lookup finds a name. The attributes it returns, as all that FS returns,
// include what is written and not yet stored.
func (fs *FS) Lookup(ctx context.Context, parent meta.Ino, name string) (meta.Attr, error) {
	before := fs.changes.Load()
	a, err := fs.cfg.Meta.Lookup(ctx, parent, name)
	if err != nil {
		return meta.Attr{}, err
	}
	return fs.learn(ctx, a, before)
}

// learn takes in attributes that came with another answer, asked for when
// changes was at before, and returns what to show.
func (fs *FS) learn(ctx context.Context, a meta.Attr, before uint64) (meta.Attr, error) {
	n := fs.get(a.Ino)
	defer fs.put(n)
	n.mu.Lock()
	if fs.Shared() {
		// What was answered while X was here does not know what was dirty, and
		// under S it is known here.
		known := !n.leased() && !n.gone && n.changed.Load() <= before && fs.unchangedSince(before)
		if known {
			n.attr, n.known = a, true
		}
		n.mu.Unlock()
		if known {
			return a, nil
		}
		return fs.ask(ctx, n)
	}
	if !n.fresh && !n.gone && fs.changes.Load() == before {
		n.attr, n.known, n.fresh = a, true, true
	}
	if n.fresh {
		defer n.mu.Unlock()
		return n.shown(), nil
	}
	n.mu.Unlock()
	return fs.look(ctx, n)
}

// Attr returns what stat shows, also of an open inode that has no name left.
func (fs *FS) Attr(ctx context.Context, ino meta.Ino) (meta.Attr, error) {
	n := fs.get(ino)
	defer fs.put(n)
	return fs.look(ctx, n)
}

// Create makes a name: mknod, mkdir and symlink alike.
func (fs *FS) Create(ctx context.Context, parent meta.Ino, name string, node meta.Node) (meta.Attr, error) {
	if node.Lease {
		if err := fs.making.RLock(ctx); err != nil {
			return meta.Attr{}, err
		}
		defer fs.making.RUnlock()
	}
	epoch := fs.epoch.Load()
	a, err := fs.cfg.Meta.Create(ctx, parent, name, node)
	fs.touch(parent)
	if err != nil {
		return meta.Attr{}, err
	}
	n := fs.get(a.Ino)
	defer fs.put(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case fs.Shared():
		if node.Lease && fs.epoch.Load() == epoch {
			fs.hold(n, a, false)
		}
	case n.gen == 0 && !n.fresh:
		n.attr, n.known, n.fresh = a, true, true
	}
	n.changed.Store(fs.changes.Add(1))
	return a, nil
}

// CreateOpen makes a file and opens it. flags are those of open(2): without
// O_EXCL a file that is there is opened.
func (fs *FS) CreateOpen(ctx context.Context, parent meta.Ino, name string, node meta.Node, flags int) (meta.Attr, *File, error) {
	node.Lease = fs.Shared() && flags&syscall.O_ACCMODE != syscall.O_RDONLY
	a, err := fs.Create(ctx, parent, name, node)
	if errors.Is(err, meta.Exist) && flags&syscall.O_EXCL == 0 {
		a, err = fs.Lookup(ctx, parent, name)
	} else {
		flags &^= syscall.O_TRUNC // there is nothing to cut
	}
	if err != nil {
		return meta.Attr{}, nil, err
	}
	f, err := fs.Open(ctx, a.Ino, flags)
	if err != nil {
		return meta.Attr{}, nil, err
	}
	a, err = fs.look(ctx, f.n)
	if err != nil {
		f.Release()
		return meta.Attr{}, nil, err
	}
	return a, f, nil
}

// Link gives an inode another name.
func (fs *FS) Link(ctx context.Context, ino, parent meta.Ino, name string) (meta.Attr, error) {
	n := fs.get(ino)
	defer fs.put(n)
	if err := fs.alter(ctx, n); err != nil {
		return meta.Attr{}, err
	}
	defer fs.altered(n)
	began := n.begin()
	a, err := fs.cfg.Meta.Link(ctx, ino, parent, name)
	n.mu.Lock()
	fs.end(n, began, a, err, false)
	n.mu.Unlock()
	fs.touch(parent)
	if err != nil {
		return meta.Attr{}, err
	}
	return fs.look(ctx, n)
}

// Readlink returns a symbolic link's target.
func (fs *FS) Readlink(ctx context.Context, ino meta.Ino) (string, error) {
	return fs.cfg.Meta.Readlink(ctx, ino)
}

// Unlink removes a name that is not a directory's. A file that is open or held
// lives on.
func (fs *FS) Unlink(ctx context.Context, parent meta.Ino, name string) error {
	return fs.remove(ctx, parent, name, fs.cfg.Meta.Unlink)
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(ctx context.Context, parent meta.Ino, name string) error {
	return fs.remove(ctx, parent, name, fs.cfg.Meta.Rmdir)
}

func (fs *FS) remove(ctx context.Context, parent meta.Ino, name string,
	call func(context.Context, meta.Ino, string, meta.Ino) (meta.Attr, error)) error {
	dir := fs.get(parent)
	defer fs.put(dir)
	if err := dir.names.Lock(ctx); err != nil {
		return err
	}
	defer dir.names.Unlock()
	old, err := fs.cfg.Meta.Lookup(ctx, parent, name)
	if err != nil {
		return err
	}
	n := fs.get(old.Ino)
	defer fs.put(n)
	if err := n.life.Lock(ctx); err != nil {
		return err
	}
	defer n.life.Unlock()
	if err := fs.alter(ctx, n); err != nil {
		return err
	}
	defer fs.altered(n)
	keep := fs.keep(n)
	began := n.begin()
	a, err := call(ctx, parent, name, keep)
	n.mu.Lock()
	fs.end(n, began, a, err, false)
	if err == nil && keep == 0 && a.Nlink == 0 {
		fs.discard(ctx, n)
	}
	n.mu.Unlock()
	fs.unused(n)
	fs.touch(parent)
	return err
}

// Rename moves a name. What is dirty in the file is stored first, so that a
// file written anew and renamed over the old one is never seen empty.
func (fs *FS) Rename(ctx context.Context, parent meta.Ino, name string, newParent meta.Ino, newName string, flags meta.RenameFlags) error {
	unlock, err := fs.lockNames(ctx, parent, newParent)
	if err != nil {
		return err
	}
	defer unlock()
	src, err := fs.cfg.Meta.Lookup(ctx, parent, name)
	if err != nil {
		return err
	}
	moved := fs.get(src.Ino)
	defer fs.put(moved)
	if err := fs.sync(ctx, moved, true); err != nil {
		return err
	}
	if err := fs.alter(ctx, moved); err != nil {
		return err
	}
	defer fs.altered(moved)
	var keep meta.Ino
	dst, err := fs.cfg.Meta.Lookup(ctx, newParent, newName)
	switch {
	case errors.Is(err, meta.NotExist):
		err = fs.cfg.Meta.Rename(ctx, parent, name, newParent, newName, flags, 0)
	case err != nil:
		return err
	case flags&meta.RenameExchange != 0 || dst.Ino == src.Ino:
		if other := fs.peek(dst.Ino); other != nil {
			defer fs.put(other)
			if err := fs.sync(ctx, other, true); err != nil {
				return err
			}
			if err := fs.alter(ctx, other); err != nil {
				return err
			}
			defer fs.altered(other)
		}
		err = fs.cfg.Meta.Rename(ctx, parent, name, newParent, newName, flags, 0)
		fs.touch(dst.Ino)
	default:
		over := fs.get(dst.Ino)
		defer fs.put(over)
		if err := over.life.Lock(ctx); err != nil {
			return err
		}
		defer over.life.Unlock()
		if err := fs.alter(ctx, over); err != nil {
			return err
		}
		defer fs.altered(over)
		keep = fs.keep(over)
		err = fs.cfg.Meta.Rename(ctx, parent, name, newParent, newName, flags, keep)
		fs.touch(dst.Ino)
		if err == nil && keep == 0 {
			fs.dropIfGone(ctx, over)
		}
		fs.unused(over)
	}
	fs.touch(src.Ino)
	fs.touch(parent)
	fs.touch(newParent)
	return err
}

// dropIfGone forgets what is dirty in an inode that may have lost its last name.
// The caller holds life.
func (fs *FS) dropIfGone(ctx context.Context, n *inode) {
	n.mu.Lock()
	dirty := !n.clean()
	n.mu.Unlock()
	if !dirty {
		return
	}
	if a, err := fs.look(ctx, n); !errors.Is(err, meta.NotExist) && (err != nil || a.Nlink > 0) {
		return
	}
	n.mu.Lock()
	fs.discard(ctx, n)
	n.mu.Unlock()
}

// lockNames takes the names lock of one or two directories, in order of their
// numbers.
func (fs *FS) lockNames(ctx context.Context, a, b meta.Ino) (unlock func(), err error) {
	first := fs.get(min(a, b))
	if err := first.names.Lock(ctx); err != nil {
		fs.put(first)
		return nil, err
	}
	if a == b {
		return func() { first.names.Unlock(); fs.put(first) }, nil
	}
	second := fs.get(max(a, b))
	if err := second.names.Lock(ctx); err != nil {
		fs.put(second)
		first.names.Unlock()
		fs.put(first)
		return nil, err
	}
	return func() {
		second.names.Unlock()
		fs.put(second)
		first.names.Unlock()
		fs.put(first)
	}, nil
}
