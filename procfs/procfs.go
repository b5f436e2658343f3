// Package procfs is the file interface that special directories speak.
//
// A special directory is a small package that returns a Dir. Package fuse shows
// any Dir to the kernel. Neither knows the other, so a test, a shell command or
// another protocol can stand in for the kernel.
//
// There are six classes of special files, each with a file here:
//
//	S  text.go         a snapshot, made when it is opened
//	C  control.go      a line that is written is a command
//	T  take.go         opening waits for a thing and takes it; closing ends that
//	X  stream.go       lines that come one after the other
//	N  transaction.go  write a request, read the reply
//	D  object.go       a whole file, stored at once when it is closed
//
// Each is a function or a small struct with a method Open, which the Open of a
// room's own node calls. So a room's nodes can be comparable values, with owner,
// mode and time of their own.
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
	"time"

	"dos/meta"
)

// Info describes a node, as a directory entry and as the answer to stat. The
// kernel checks who may what by its owner and mode.
type Info struct {
	Name  string
	Mode  uint32 // type and permissions, as st_mode
	UID   uint32
	GID   uint32
	Size  int64     // bytes; of a snapshot what reading it now would give
	Mtime meta.Time // the last change; 0 is when the mount began
	// Good is for how long the kernel may believe this without asking again.
	Good time.Duration
}

const (
	// OneCall is for what changes: the kernel, which rounds it up to the next tick of its
	// clock, need not ask again within the system call that looked it up. A later one looks
	// up again what it names by a path; only what it has open, and is not open for writing,
	// it may believe to be as it was some milliseconds ago.
	OneCall = time.Nanosecond
	// Always is for what never changes.
	Always = time.Hour
)

// A Node is a Dir, a File or a Link. What else can be done to it, it says by
// implementing one of the interfaces below; what it does not implement is refused.
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

// A Finder is a Dir that can say with one look what a name stands for, what that is, and
// what the directory itself is: the node returned need not be asked. If the kernel
// believes something else of the directory, it looks again.
type Finder interface {
	Find(ctx context.Context, name string) (n Node, is, dir Info, err error)
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
	Append      bool // whatever the offset, what is written goes to the end
	Truncate    bool // what was there is to be gone
	Create      bool // it need not exist; only Make is told
	Exclusive   bool // and must not
	Caller      Caller
}

// Caller is the process that opens.
type Caller struct {
	UID, GID, PID uint32
}

// May reports whether the caller may do all of want, bits as for others, with what has
// that owner and mode. The kernel asks that of a path; this is for what a line names.
// Groups but the first of the caller are not known: they count as others.
func (c Caller) May(uid, gid, mode, want uint32) bool {
	switch {
	case c.UID == 0:
		return true
	case c.UID == uid:
		mode >>= 6
	case c.GID == gid:
		mode >>= 3
	}
	return mode&want == want
}

// A Handle is one open of a file. Closing it gives back what opening it took.
type Handle interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
	// Close comes when the last descriptor is gone. The program's close(2) has
	// returned by then: nobody sees the error, which is logged.
	Close(ctx context.Context) error
}

// A Blocker is a Node whose handles' WriteAt may wait. The kernel holds an
// inode's lock while it writes to it, and whoever waits for that lock cannot be
// killed; so each open of a Blocker gets an inode of its own.
type Blocker interface {
	Blocks()
}

// A Sizer is a Handle that knows exactly how many bytes it has to read.
type Sizer interface {
	Size() int64
}

// A Streamer is a Handle whose reads take no offset and may block.
type Streamer interface {
	Stream()
}

// A Flusher is a Handle that is told of each close(2) of a descriptor of it, of
// duplicates and of those that a child inherited too, while the closer waits:
// programs see the error, but shells do not look at it. `echo x >f` closes a
// duplicate before it writes.
type Flusher interface {
	Flush(ctx context.Context, by Closer) error
}

// A Syncer is a Handle that has something to do for fsync(2): what was written to it is
// stored when Sync returns. What is written to others is when the write returns, or
// for nobody.
type Syncer interface {
	Sync(ctx context.Context) error
}

// Closer says who closes a descriptor.
type Closer struct {
	Known  bool // if it is not, it is in another PID namespace, and the rest is false
	Opener bool // the process that opened the file
	Wrote  bool // it has written by this handle
	Killed bool // a signal is killing it
}

// A Truncater is a Handle of which the size can be set. Of other handles it can
// be set to 0, which does nothing.
type Truncater interface {
	Truncate(ctx context.Context, size int64) error
}

// A Truncatable is a File whose handles are Truncaters, so that truncate(2) works
// by its name too: it opens the file for that.
type Truncatable interface {
	Truncatable()
}

// A Locker is a Handle that flock(2) locks. The lock is the handle's: Close gives
// it up.
type Locker interface {
	// Lock takes the lock, changes its mode or, with meta.Unlocked, gives it up. If
	// another handle is in the way it waits until ctx ends or, if wait is false,
	// is meta.Busy. Whoever is interrupted will often wait again before long.
	Lock(ctx context.Context, mode meta.LockMode, wait bool) error
}

// A Conditional is a Handle whose commit can be made to depend on the version of
// what it replaces: `user.dos.version` set while the file is open. 0 is the
// version of what does not exist.
type Conditional interface {
	Only(version uint64)
}

// A Settler is a Handle that can store now what it would store when it is closed,
// because something is to be set that only what is stored can have.
type Settler interface {
	Settle(ctx context.Context) error
}

// A Creator is a Dir in which names can be made. mode has type bits.
type Creator interface {
	Create(ctx context.Context, name string, mode uint32, by Caller) (Node, error)
}

// A Maker is a Dir in which opening a name that does not exist makes a handle, and
// closing that makes the file. The handle has a Stat, since the node has none yet.
type Maker interface {
	Make(ctx context.Context, name string, mode uint32, how Open) (Node, MadeHandle, error)
}

// A MadeHandle can say what it will be.
type MadeHandle interface {
	Handle
	Node
}

// A Remover is a Dir from which names can be removed: with rmdir the name of a
// Dir, with unlink that of others.
type Remover interface {
	Remove(ctx context.Context, name string, by Caller) error
}

// A Renamer is a Dir in which names can be changed.
type Renamer interface {
	// Movable says whether name may be moved away at all; a fixed file may not.
	Movable(name string) bool
	// Rename moves name to newName in the directory to, which is one of the same
	// kind or not: then it is meta.Invalid. With noReplace there must be nothing.
	Rename(ctx context.Context, name string, to Node, newName string, noReplace bool, by Caller) error
}

// A Setter is a Node whose owner and mode can be changed. The kernel has checked
// that the caller may.
type Setter interface {
	Set(ctx context.Context, change Change, by Caller) error
}

// Change says what to set; nil leaves it.
type Change struct {
	Mode, UID, GID *uint32 // Mode without type bits
	// Touch says that the times were to be set. What has a ttl is renewed.
	Touch bool
}

// An Attributed is a Node with extended attributes. Their names lack the prefix
// `user.dos.` here.
type Attributed interface {
	Xattrs(ctx context.Context) (map[string]string, error)
	// SetXattr sets one, or removes it if val is nil.
	SetXattr(ctx context.Context, name string, val *string, by Caller) error
}
