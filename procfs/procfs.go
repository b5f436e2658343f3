// Package procfs is the file interface that special directories speak.
//
// A special directory is a small package that returns a Dir. Package fuse shows
// any Dir to the kernel. Neither knows the other, so a test, a shell command or
// another protocol can stand in for the kernel.
//
// What the kernel and shells demand of special files is in the comments here;
// it was probed, not guessed. In short: a file whose reads can block must be a
// Stream, because two readers of one seekable open file lock each other out
// beyond the reach of kill -9; what a file holds is rendered when it is opened,
// so that its size is exact (programs read nothing from a file of size 0); and
// whatever waits honours its context.
package procfs

import (
	"context"
	"iter"
	"strings"

	"dos/meta"
)

// Info describes a node, as a directory entry and as the answer to stat.
type Info struct {
	Name  string
	Mode  uint32 // type and permissions, as st_mode
	UID   uint32
	GID   uint32
	Size  int64 // bytes; of a snapshot what reading it now would give
	Mtime meta.Time
}

// A Node is a Dir, a File or a Link. What else can be done to it, it says by
// implementing Creator or Remover; what it does not implement is refused.
type Node interface {
	Stat(ctx context.Context) (Info, error)
}

// A Dir is a directory. Nodes that Lookup returns for the same name should be
// equal while they mean the same object: package fuse gives equal nodes the
// same inode number.
type Dir interface {
	Node
	// Lookup finds a name, also one that Entries does not list: files that
	// consume or block are found but not listed, so that find and grep -r
	// cannot eat a message or hang.
	Lookup(ctx context.Context, name string) (Node, error)
	Entries(ctx context.Context) iter.Seq2[Info, error]
}

// A File can be opened.
type File interface {
	Node
	// Open blocks until the file can be opened or ctx ends. The kernel ends
	// ctx when the user interrupts the system call.
	Open(ctx context.Context, how Open) (Handle, error)
}

// A Link is a symbolic link.
type Link interface {
	Node
	Target(ctx context.Context) (string, error)
}

// Open says what an open is for and by whom.
type Open struct {
	Read, Write bool
	Nonblock    bool
	Caller      Caller
}

// Caller is the process that opens.
type Caller struct {
	UID, GID, PID uint32
}

// A Handle is one open of a file. Closing it gives back what opening it took.
type Handle interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
	Close(ctx context.Context) error
}

// A Sizer is a Handle that knows exactly how many bytes it has to read.
type Sizer interface {
	Size() int64
}

// A Streamer is a Handle whose reads take no offset and may block.
type Streamer interface {
	Stream()
}

// A Creator is a Dir in which names can be made. mode has type bits.
type Creator interface {
	Create(ctx context.Context, name string, mode uint32, by Caller) (Node, error)
}

// A Remover is a Dir from which names can be removed.
type Remover interface {
	Remove(ctx context.Context, name string, by Caller) error
}

// Text is a read-only file (class S) whose contents are made anew by every open.
func Text(name string, text func(context.Context) (string, error)) File {
	return &textFile{name, text}
}

type textFile struct {
	name string
	text func(context.Context) (string, error)
}

func (f *textFile) called() string { return f.name }

func (f *textFile) Stat(ctx context.Context) (Info, error) {
	text, err := f.text(ctx)
	return Info{Name: f.name, Mode: meta.TypeFile | 0o444, Size: int64(len(text))}, err
}

func (f *textFile) Open(ctx context.Context, how Open) (Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	text, err := f.text(ctx)
	if err != nil {
		return nil, err
	}
	return textHandle(text), nil
}

// textHandle is a Sizer: its text does not change after the open.
type textHandle string

func (h textHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return strings.NewReader(string(h)).ReadAt(p, off)
}
func (textHandle) WriteAt(context.Context, []byte, int64) (int, error) { return 0, meta.Permission }
func (textHandle) Close(context.Context) error                         { return nil }
func (h textHandle) Size() int64                                       { return int64(len(h)) }

// Unlisted is a Node that its Folder finds but does not list, because it
// consumes or blocks.
type Unlisted interface {
	Unlisted()
}

// Folder is a fixed directory of the nodes given, in that order. Those that
// are Unlisted are found, and not listed.
func Folder(name string, nodes ...Node) Dir { return &folder{name, nodes} }

type folder struct {
	name  string
	nodes []Node
}

func (d *folder) Stat(context.Context) (Info, error) {
	return Info{Name: d.name, Mode: meta.TypeDir | 0o555}, nil
}

func (d *folder) called() string { return d.name }

func (d *folder) Lookup(ctx context.Context, name string) (Node, error) {
	for _, n := range d.nodes {
		if called(ctx, n) == name {
			return n, nil
		}
	}
	return nil, meta.NotExist
}

// called returns the name of a node, without making a text only to know how
// long it is.
func called(ctx context.Context, n Node) string {
	if n, ok := n.(interface{ called() string }); ok {
		return n.called()
	}
	info, err := n.Stat(ctx)
	if err != nil {
		return ""
	}
	return info.Name
}

func (d *folder) Entries(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for _, n := range d.nodes {
			if _, hidden := n.(Unlisted); hidden {
				continue
			}
			info, err := n.Stat(ctx)
			if err != nil { // it is there, though its text cannot be made now
				info.Name = called(ctx, n)
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}
