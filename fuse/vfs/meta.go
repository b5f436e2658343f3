package vfs

import (
	"context"

	"dos/chunk"
	"dos/meta"
)

// Meta is what the stored tree needs of the metadata service. Every call is
// one request; one that changes something returns when the change is committed
// and synced. Errors are kinds of package meta.
type Meta interface {
	Lookup(ctx context.Context, parent meta.Ino, name string) (meta.Attr, error)
	Attr(ctx context.Context, ino meta.Ino) (meta.Attr, error)
	SetAttr(ctx context.Context, ino meta.Ino, set meta.SetAttr) (meta.Attr, error)

	// Create makes name in parent and returns the new inode. Exist if the name is taken.
	Create(ctx context.Context, parent meta.Ino, name string, node meta.Node) (meta.Attr, error)
	Link(ctx context.Context, ino, parent meta.Ino, name string) (meta.Attr, error)
	// Unlink removes a name that is not a directory's. If that was the inode's
	// last name and keep is its number, the inode stays, without a name, until
	// Drop or the session's end: an open file. It returns the attributes after.
	Unlink(ctx context.Context, parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error)
	// Rmdir removes an empty directory, with keep as for Unlink.
	Rmdir(ctx context.Context, parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error)
	// Rename moves a name atomically. keep is as for Unlink, of what stood at
	// the new name.
	Rename(ctx context.Context, parent meta.Ino, name string, newParent meta.Ino, newName string, flags meta.RenameFlags, keep meta.Ino) error
	// Drop gives up inodes that were kept.
	Drop(ctx context.Context, inos ...meta.Ino) error

	// Entries lists names of a directory in a stable order, those after the
	// name given, at most limit; more says whether there are others. "." and
	// ".." are not among them. With attrs each entry has its Attr.
	Entries(ctx context.Context, dir meta.Ino, after string, limit int, attrs bool) (list []meta.Entry, more bool, err error)
	// Parent returns a directory's parent; the root is its own.
	Parent(ctx context.Context, dir meta.Ino) (meta.Ino, error)
	Readlink(ctx context.Context, ino meta.Ino) (string, error)

	// Layout says where a range of a file lies.
	Layout(ctx context.Context, ino meta.Ino, off, size int64) (meta.Layout, error)
	Write(ctx context.Context, w meta.Write) (meta.Attr, error)

	Xattr(ctx context.Context, ino meta.Ino, name string) ([]byte, error)
	Xattrs(ctx context.Context, ino meta.Ino) ([]string, error)
	// SetXattr sets an extended attribute; flags are those of setxattr(2):
	// 1 only creates (Exist), 2 only replaces (NoAttr).
	SetXattr(ctx context.Context, ino meta.Ino, name string, val []byte, flags uint32) error
	RemoveXattr(ctx context.Context, ino meta.Ino, name string) error

	// Usage counts what the file system holds.
	Usage(ctx context.Context) (meta.Usage, error)
}

// Data is what the stored tree needs of the data path (chunk/stripe).
type Data interface {
	// Begin reserves a stripe ID. Until End is called for it the session's
	// low-water mark stays at or below it, so that the collector does not take
	// its shards, which no extent names yet, for garbage.
	Begin(ctx context.Context) (chunk.StripeID, error)
	End(id chunk.StripeID)
	// Low is the session's low-water mark: every ID reserved below it has ended.
	Low() chunk.StripeID
	// Write stores data as the stripe id and returns once any M further losses
	// leave it readable, after power cuts too. It may read data until it returns.
	Write(ctx context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error)
	// Read fills p from offset off of the stripe. It returns chunk.ErrTooFew
	// when too few shards can be reached or verified, and chunk.ErrNotExist when
	// none of its stores has ever heard of it (it was collected).
	Read(ctx context.Context, s chunk.Stripe, p []byte, off int64) error
	// Capacity says how many bytes of data the stores can hold in all, and how
	// many more, at the code that would be used now.
	Capacity(ctx context.Context) (total, free int64, err error)
}
