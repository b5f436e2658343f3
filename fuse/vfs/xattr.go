package vfs

import (
	"context"
	"errors"

	"dos/meta"
)

// Xattr returns an extended attribute's value; NoAttr if there is none. The
// kernel and programs ask for the same few absent ones again and again, so the
// names that there are, are remembered.
func (fs *FS) Xattr(ctx context.Context, ino meta.Ino, name string) ([]byte, error) {
	n := fs.get(ino)
	defer fs.put(n)
	n.mu.Lock()
	mine, err := fs.sure(ctx, n)
	known, has := n.xnames != nil, n.xnames[name]
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if known && !has {
		return nil, meta.NoAttr
	}
	val, err := fs.cfg.Meta.Xattr(ctx, ino, name)
	if errors.Is(err, meta.NoAttr) && !known && (mine || !fs.Shared()) {
		// Only to remember: if it fails, the next one asks again.
		_, _ = fs.listXattrs(ctx, n)
	}
	return val, err
}

// Xattrs lists the names of the extended attributes.
func (fs *FS) Xattrs(ctx context.Context, ino meta.Ino) ([]string, error) {
	n := fs.get(ino)
	defer fs.put(n)
	return fs.listXattrs(ctx, n)
}

func (fs *FS) listXattrs(ctx context.Context, n *inode) ([]string, error) {
	n.mu.Lock()
	gen := n.xgen
	n.mu.Unlock()
	list, err := fs.cfg.Meta.Xattrs(ctx, n.ino)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(list))
	for _, name := range list {
		names[name] = true
	}
	n.mu.Lock()
	if n.xgen == gen && (n.leased() || !fs.Shared()) {
		n.xnames = names
	}
	n.mu.Unlock()
	return list, nil
}

// SetXattr sets an extended attribute, with the flags of setxattr(2).
func (fs *FS) SetXattr(ctx context.Context, ino meta.Ino, name string, val []byte, flags uint32) error {
	return fs.changeXattrs(ctx, ino, name == meta.Fence, func() error { return fs.cfg.Meta.SetXattr(ctx, ino, name, val, flags) })
}

// RemoveXattr removes an extended attribute.
func (fs *FS) RemoveXattr(ctx context.Context, ino meta.Ino, name string) error {
	return fs.changeXattrs(ctx, ino, false, func() error { return fs.cfg.Meta.RemoveXattr(ctx, ino, name) })
}

// changeXattrs makes a change of extended attributes, and with them of ctime and,
// if it was an ACL, perhaps of the mode. fences: there is a fence afterwards.
func (fs *FS) changeXattrs(ctx context.Context, ino meta.Ino, fences bool, change func() error) error {
	n := fs.get(ino)
	defer fs.put(n)
	if err := fs.alter(ctx, n); err != nil {
		return err
	}
	defer fs.altered(n)
	err := change()
	n.mu.Lock()
	n.xgen++
	n.xnames = nil
	n.attr.Fenced = n.attr.Fenced || fences && err == nil
	n.mu.Unlock()
	fs.touch(ino)
	return err
}
