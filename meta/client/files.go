package client

import (
	"context"

	"dos/meta"
	ns "dos/meta/namespace"
)

// Files are the calls of the tree of files (fuse/vfs.Meta). What their session
// keeps open is that of the Caller.
type Files struct{ Caller Caller }

// Init makes the root directory if there is none, with the permissions and the
// owner given, and returns its attributes.
func (f Files) Init(ctx context.Context, mode, uid, gid uint32) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpInit, ns.Init{Mode: mode, UID: uid, GID: gid}, &attr)
	return attr, err
}

// Lookup finds a name in a directory.
func (f Files) Lookup(ctx context.Context, parent meta.Ino, name string) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpLookup, ns.Name{Parent: parent, Name: name}, &attr)
	return attr, err
}

// Attr returns the attributes of an inode.
func (f Files) Attr(ctx context.Context, ino meta.Ino) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpAttr, ns.Inode{Ino: ino}, &attr)
	return attr, err
}

// SetAttr changes attributes and returns them all.
func (f Files) SetAttr(ctx context.Context, ino meta.Ino, set meta.SetAttr) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpSetAttr, ns.SetAttr{Ino: ino, Set: set}, &attr)
	return attr, err
}

// Create makes an inode and its first name.
func (f Files) Create(ctx context.Context, parent meta.Ino, name string, node meta.Node) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpCreate, ns.Create{Parent: parent, Name: name, Node: node}, &attr)
	return attr, err
}

// Link gives an inode one more name.
func (f Files) Link(ctx context.Context, ino, parent meta.Ino, name string) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpLink, ns.Link{Ino: ino, Parent: parent, Name: name}, &attr)
	return attr, err
}

// Unlink removes a name that is not a directory's. If that was the last name
// of the inode keep, it stays until Drop or the session's end.
func (f Files) Unlink(ctx context.Context, parent meta.Ino, name string, keep meta.Ino) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpUnlink, ns.Unlink{Parent: parent, Name: name, Keep: keep}, &attr)
	return attr, err
}

// Rmdir removes an empty directory, with keep as for Unlink.
func (f Files) Rmdir(ctx context.Context, parent meta.Ino, name string, keep meta.Ino) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpRmdir, ns.Unlink{Parent: parent, Name: name, Keep: keep}, &attr)
	return attr, err
}

// Rename moves a name atomically. keep is as for Unlink, of what stood at the new name.
func (f Files) Rename(ctx context.Context, parent meta.Ino, name string, newParent meta.Ino, newName string, flags meta.RenameFlags, keep meta.Ino) error {
	return f.Caller.Call(ctx, ns.OpRename, ns.Rename{
		Parent: parent, Name: name, NewParent: newParent, NewName: newName, Flags: flags, Keep: keep,
	}, nil)
}

// Asked lists at most limit inodes that others took the last name of and that
// the session is to Drop, or Keep if it has them open.
func (f Files) Asked(ctx context.Context, limit int) ([]meta.Ino, error) {
	var reply ns.AskedReply
	err := f.Caller.Call(ctx, ns.OpAsked, ns.Asked{Limit: limit}, &reply)
	return reply.Inos, err
}

// Keep says that the session uses inodes that it was asked about.
func (f Files) Keep(ctx context.Context, inos ...meta.Ino) error {
	return batches(inos, func(inos []meta.Ino) error {
		return f.Caller.Call(ctx, ns.OpDrop, ns.Drop{Keep: inos}, nil)
	})
}

// Drop gives up inodes that were kept, or that the session is asked about.
func (f Files) Drop(ctx context.Context, inos ...meta.Ino) error {
	return batches(inos, func(inos []meta.Ino) error {
		return f.Caller.Call(ctx, ns.OpDrop, ns.Drop{Inos: inos}, nil)
	})
}

// Entries lists names of a directory after the one given, at most limit, and
// says whether there are more.
func (f Files) Entries(ctx context.Context, dir meta.Ino, after string, limit int, attrs bool) (list []meta.Entry, more bool, err error) {
	var reply ns.EntriesReply
	err = f.Caller.Call(ctx, ns.OpEntries, ns.Entries{Dir: dir, After: after, Limit: limit, Attrs: attrs}, &reply)
	return reply.Entries, reply.More, err
}

// Parent returns a directory's parent; the root is its own.
func (f Files) Parent(ctx context.Context, dir meta.Ino) (meta.Ino, error) {
	var reply ns.Inode
	err := f.Caller.Call(ctx, ns.OpParent, ns.Inode{Ino: dir}, &reply)
	return reply.Ino, err
}

// Readlink returns where a symlink leads.
func (f Files) Readlink(ctx context.Context, ino meta.Ino) (string, error) {
	var reply ns.Target
	err := f.Caller.Call(ctx, ns.OpReadlink, ns.Inode{Ino: ino}, &reply)
	return reply.Target, err
}

// Layout says where a range of a file lies.
func (f Files) Layout(ctx context.Context, ino meta.Ino, off, size int64) (layout meta.Layout, err error) {
	err = f.Caller.Call(ctx, ns.OpLayout, ns.Layout{Ino: ino, Off: off, Size: size}, &layout)
	return layout, err
}

// Write changes what a file's ranges hold.
func (f Files) Write(ctx context.Context, w meta.Write) (attr meta.Attr, err error) {
	err = f.Caller.Call(ctx, ns.OpWrite, w, &attr)
	return attr, err
}

// Xattr returns the value of an extended attribute.
func (f Files) Xattr(ctx context.Context, ino meta.Ino, name string) ([]byte, error) {
	var reply ns.XattrValue
	err := f.Caller.Call(ctx, ns.OpXattr, ns.XattrName{Ino: ino, Name: name}, &reply)
	return reply.Val, err
}

// Xattrs lists the names of an inode's extended attributes.
func (f Files) Xattrs(ctx context.Context, ino meta.Ino) ([]string, error) {
	var reply ns.XattrNames
	err := f.Caller.Call(ctx, ns.OpXattrs, ns.Inode{Ino: ino}, &reply)
	return reply.Names, err
}

// SetXattr sets an extended attribute; flags are those of setxattr(2).
func (f Files) SetXattr(ctx context.Context, ino meta.Ino, name string, val []byte, flags uint32) error {
	return f.Caller.Call(ctx, ns.OpSetXattr, ns.SetXattr{Ino: ino, Name: name, Val: val, Flags: flags}, nil)
}

// RemoveXattr removes an extended attribute.
func (f Files) RemoveXattr(ctx context.Context, ino meta.Ino, name string) error {
	return f.Caller.Call(ctx, ns.OpRemoveXattr, ns.XattrName{Ino: ino, Name: name}, nil)
}

// Usage counts what the file system holds.
func (f Files) Usage(ctx context.Context) (usage meta.Usage, err error) {
	err = f.Caller.Call(ctx, ns.OpUsage, struct{}{}, &usage)
	return usage, err
}
