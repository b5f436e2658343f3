// Package vfs is the stored tree of one mount: open files, cached attributes,
// written data that is not stored yet, and reads.
package vfs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"dos/meta"
)

// ErrNoData says that Seek found nothing: ENXIO to a program.
var ErrNoData = errors.New("vfs: no data at or after the offset")

// Config says what an FS is made of. Zero fields mean the defaults named.
type Config struct {
	Meta Meta
	Data Data
	// Dirty bounds the memory in bytes that data not yet stored takes, buffers
	// being stored included: 256 MiB, and not less than 16 MiB.
	Dirty int64
	// Age is how long written data waits at most before it leaves: 5 s.
	Age time.Duration
	// Wait bounds every wait for a fault to pass: 30 s.
	Wait time.Duration
	// Sync makes each write wait until it is stored, as the mount option does.
	Sync bool
	Log  *slog.Logger // slog.Default()
}

// An FS is the stored tree of one mount. Its methods may be called concurrently.
type FS struct{ cfg Config }

// New returns an FS. Nothing leaves it before Run.
func New(cfg Config) *FS { return &FS{cfg} }

// Run stores what is written until ctx ends; then it stores the rest, for at
// most Config.Wait, and returns. What could not be stored is its error.
func (fs *FS) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Lookup finds a name. The attributes it returns, as all that FS returns,
// include what is written and not yet stored.
func (fs *FS) Lookup(ctx context.Context, parent meta.Ino, name string) (meta.Attr, error) {
	return meta.Attr{}, meta.Unsupported
}

// Attr returns what stat shows, also of an open inode that has no name left.
func (fs *FS) Attr(ctx context.Context, ino meta.Ino) (meta.Attr, error) {
	return meta.Attr{}, meta.Unsupported
}

// SetAttr changes attributes; a Size truncates.
func (fs *FS) SetAttr(ctx context.Context, ino meta.Ino, set meta.SetAttr) (meta.Attr, error) {
	return meta.Attr{}, meta.Unsupported
}

// Create makes a name: mknod, mkdir and symlink alike.
func (fs *FS) Create(ctx context.Context, parent meta.Ino, name string, node meta.Node) (meta.Attr, error) {
	return meta.Attr{}, meta.Unsupported
}

// CreateOpen makes a file and opens it. flags are those of open(2): without
// O_EXCL a file that is there is opened.
func (fs *FS) CreateOpen(ctx context.Context, parent meta.Ino, name string, node meta.Node, flags int) (meta.Attr, *File, error) {
	return meta.Attr{}, nil, meta.Unsupported
}

// Link gives an inode another name.
func (fs *FS) Link(ctx context.Context, ino, parent meta.Ino, name string) (meta.Attr, error) {
	return meta.Attr{}, meta.Unsupported
}

// Unlink removes a name that is not a directory's. An open file lives on.
func (fs *FS) Unlink(ctx context.Context, parent meta.Ino, name string) error {
	return meta.Unsupported
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(ctx context.Context, parent meta.Ino, name string) error { return meta.Unsupported }

// Rename moves a name.
func (fs *FS) Rename(ctx context.Context, parent meta.Ino, name string, newParent meta.Ino, newName string, flags meta.RenameFlags) error {
	return meta.Unsupported
}

// Readlink returns a symbolic link's target.
func (fs *FS) Readlink(ctx context.Context, ino meta.Ino) (string, error) {
	return "", meta.Unsupported
}

// Xattr returns an extended attribute's value; NoAttr if there is none.
func (fs *FS) Xattr(ctx context.Context, ino meta.Ino, name string) ([]byte, error) {
	return nil, meta.Unsupported
}

// Xattrs lists the names of the extended attributes.
func (fs *FS) Xattrs(ctx context.Context, ino meta.Ino) ([]string, error) {
	return nil, meta.Unsupported
}

// SetXattr sets an extended attribute, with the flags of setxattr(2).
func (fs *FS) SetXattr(ctx context.Context, ino meta.Ino, name string, val []byte, flags uint32) error {
	return meta.Unsupported
}

// RemoveXattr removes an extended attribute.
func (fs *FS) RemoveXattr(ctx context.Context, ino meta.Ino, name string) error {
	return meta.Unsupported
}

// Stat is what statfs shows.
type Stat struct {
	Total, Free int64 // bytes of data that the stores hold in all, and can still take
	Files       int64 // inodes in use
}

// StatFS says how full the file system is.
func (fs *FS) StatFS(ctx context.Context) (Stat, error) { return Stat{}, meta.Unsupported }

// SyncAll returns when all that was written before is stored.
func (fs *FS) SyncAll(ctx context.Context) error { return meta.Unsupported }

// Open opens a regular file. flags are those of open(2); of them O_ACCMODE,
// O_TRUNC, O_SYNC and O_DSYNC mean something here. The caller has checked
// permissions.
func (fs *FS) Open(ctx context.Context, ino meta.Ino, flags int) (*File, error) {
	return nil, meta.Unsupported
}

// A File is one open of a regular file.
type File struct{}

// WriteFlags say how one write is meant.
type WriteFlags uint8

const (
	// Append writes at the end of the file, wherever that is by then. Writes
	// of mapped pages never append, though their handle may be O_APPEND.
	Append WriteFlags = 1 << iota
	// KillPriv clears the set-id bits, as a write by an ordinary user does.
	KillPriv
)

// Ino returns the file's inode number.
func (f *File) Ino() meta.Ino { return 0 }

// ReadAt fills p from off. It returns fewer bytes only at the end of the file,
// and then no error.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return 0, meta.Unsupported
}

// WriteAt takes p over. It returns fewer bytes than len(p) only with an error.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, how WriteFlags) (int, error) {
	return 0, meta.Unsupported
}

// Flush is called at each close of a descriptor: it stores what the file has.
func (f *File) Flush(ctx context.Context) error { return meta.Unsupported }

// Fsync returns when all that was written to the file before is stored.
func (f *File) Fsync(ctx context.Context, dataOnly bool) error { return meta.Unsupported }

// Allocate is fallocate(2), with its mode bits.
func (f *File) Allocate(ctx context.Context, off, size int64, mode uint32) error {
	return meta.Unsupported
}

// Seek is lseek(2) for SEEK_DATA (3) and SEEK_HOLE (4). With nothing found, or
// off at or beyond the end, the error is ErrNoData (ENXIO).
func (f *File) Seek(ctx context.Context, off int64, whence uint32) (int64, error) {
	return 0, meta.Unsupported
}

// Release ends the handle. It does not store anything: Flush came before.
func (f *File) Release() {}

// OpenDir opens a directory for listing.
func (fs *FS) OpenDir(ctx context.Context, ino meta.Ino) (*Dir, error) {
	return nil, meta.Unsupported
}

// A Dir is one open of a directory.
type Dir struct{}

// Ino returns the directory's inode number.
func (d *Dir) Ino() meta.Ino { return 0 }

// Entry returns the entry at a position: 0 is ".", 1 is "..". A position means
// the same entry as long as the handle is open, until position 0 is asked for
// again, which lists afresh; so position+1 serves as the cookie of readdir. ok
// is false at the end. With plus the entry has its Attr, unless it was removed
// meanwhile.
func (d *Dir) Entry(ctx context.Context, pos int64, plus bool) (e meta.Entry, ok bool, err error) {
	return meta.Entry{}, false, meta.Unsupported
}

// Release ends the handle.
func (d *Dir) Release() {}
