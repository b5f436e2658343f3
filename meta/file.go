package meta

import (
	"strings"
	"time"

	"dos/chunk"
)

// An Ino is the number of an inode. Its high 16 bits name the shard (the Raft
// group) that owns it; the first version has one, shard 0. Numbers are never reused.
type Ino uint64

// Root is the inode of the root directory.
const Root Ino = 1

// Limits of the file system.
const (
	NameMax    = 255               // bytes of one name
	SymlinkMax = 4095              // bytes of a symlink's target
	LinkMax    = 1 << 20           // names of one inode; subdirectories of one directory
	SizeMax    = 1<<63 - 1 - 1<<20 // bytes of one file
	InlineMax  = 64 << 10          // bytes of inline data in one command
	InlineFile = 4 << 10           // bytes of a file that stays inline for good
	XattrMax   = 64 << 10          // bytes of one extended attribute's value, and of all names of an inode
	BatchMax   = 4096              // extents in one command
)

// A Time is nanoseconds since 1970-01-01 UTC.
type Time int64

// At returns t as a Time.
func At(t time.Time) Time { return Time(t.UnixNano()) }

// Std returns t as a time.Time.
func (t Time) Std() time.Time { return time.Unix(0, int64(t)) }

// The types of inodes, as in st_mode (inode(7)).
const (
	TypeMask    uint32 = 0o170000
	TypeSocket  uint32 = 0o140000
	TypeSymlink uint32 = 0o120000
	TypeFile    uint32 = 0o100000
	TypeBlock   uint32 = 0o060000
	TypeDir     uint32 = 0o040000
	TypeChar    uint32 = 0o020000
	TypeFIFO    uint32 = 0o010000

	SetUID uint32 = 0o4000
	SetGID uint32 = 0o2000
	Sticky uint32 = 0o1000
)

// Attr is what stat tells of an inode.
type Attr struct {
	Ino   Ino    `cbor:"1,keyasint,omitempty"`
	Mode  uint32 `cbor:"2,keyasint,omitempty"` // type and permissions, as st_mode
	Nlink uint32 `cbor:"3,keyasint,omitempty"` // for directories 2 + subdirectories
	UID   uint32 `cbor:"4,keyasint,omitempty"`
	GID   uint32 `cbor:"5,keyasint,omitempty"`
	Rdev  uint32 `cbor:"6,keyasint,omitempty"` // of device nodes
	Size  int64  `cbor:"7,keyasint,omitempty"` // bytes; of a symlink its target's length
	Bytes int64  `cbor:"8,keyasint,omitempty"` // data that extents hold, for st_blocks
	Atime Time   `cbor:"9,keyasint,omitempty"`
	Mtime Time   `cbor:"10,keyasint,omitempty"`
	Ctime Time   `cbor:"11,keyasint,omitempty"`
	Btime Time   `cbor:"12,keyasint,omitempty"`
	// Data grows when the extents change, also when a fold changes only where
	// the bytes lie. Caches of extents compare it.
	Data uint64 `cbor:"13,keyasint,omitempty"`
	// Fenced says that the file has the attribute Fence. Who writes to it is to
	// hear at once that he may not.
	Fenced bool `cbor:"14,keyasint,omitempty"`
}

// Fence is the extended attribute that binds a file to a lock (meta/named): its
// value is the lock's name, a colon, and the least token.
const Fence = "user.dos.fence"

// Type returns the type bits of the mode.
func (a Attr) Type() uint32 { return a.Mode & TypeMask }

// IsDir reports whether the inode is a directory.
func (a Attr) IsDir() bool { return a.Type() == TypeDir }

// IsFile reports whether the inode is a regular file.
func (a Attr) IsFile() bool { return a.Type() == TypeFile }

// SetAttr asks for changes of attributes; what is nil stays. Ctime becomes the
// command's time. A new size cuts the extents or leaves a hole. Chown and
// truncation clear set-id bits as POSIX says when KillPriv is set.
type SetAttr struct {
	Mode     *uint32 `cbor:"1,keyasint,omitempty"` // permissions; the type bits are ignored
	UID      *uint32 `cbor:"2,keyasint,omitempty"`
	GID      *uint32 `cbor:"3,keyasint,omitempty"`
	Size     *int64  `cbor:"4,keyasint,omitempty"`
	Atime    *Time   `cbor:"5,keyasint,omitempty"`
	Mtime    *Time   `cbor:"6,keyasint,omitempty"`
	KillPriv bool    `cbor:"7,keyasint,omitempty"`
}

// Node describes an inode to be made.
type Node struct {
	Mode   uint32 `cbor:"1,keyasint,omitempty"` // with type bits; the umask has been applied
	UID    uint32 `cbor:"2,keyasint,omitempty"`
	GID    uint32 `cbor:"3,keyasint,omitempty"`
	Rdev   uint32 `cbor:"4,keyasint,omitempty"`
	Target string `cbor:"5,keyasint,omitempty"` // of a symlink
	// Lease gives the session the lease of the file (meta/lease) from the start.
	Lease bool `cbor:"6,keyasint,omitempty"`
	// Hidden makes the directory behind that of tasks, whose name nothing else can have.
	Hidden bool `cbor:"7,keyasint,omitempty"`
}

// An Entry is one name in a directory.
type Entry struct {
	Name string `cbor:"1,keyasint,omitempty"`
	Ino  Ino    `cbor:"2,keyasint,omitempty"`
	Type uint32 `cbor:"3,keyasint,omitempty"` // the type bits of the mode
	Attr *Attr  `cbor:"4,keyasint,omitempty"` // when asked for
}

// An Extent says where Len bytes of a file from offset Off lie: in a stripe
// from offset At, or, when Stripe is zero, inline. Where no extent is, the
// file reads as zeros.
type Extent struct {
	Off    int64          `cbor:"1,keyasint,omitempty"`
	Len    int64          `cbor:"2,keyasint,omitempty"`
	Stripe chunk.StripeID `cbor:"3,keyasint,omitempty"`
	At     uint32         `cbor:"4,keyasint,omitempty"`
	Inline []byte         `cbor:"5,keyasint,omitempty"` // Len bytes
}

// End is the offset of the first byte after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// A Write is the one command that changes what a file's ranges hold. The
// extents must be in order and not overlap; each takes the place of whatever the
// file had in its range. Stripes lists the new stripes they name, whose shards
// are already synced on their stores.
type Write struct {
	Ino     Ino            `cbor:"1,keyasint,omitempty"`
	Extents []Extent       `cbor:"2,keyasint,omitempty"`
	Stripes []chunk.Stripe `cbor:"3,keyasint,omitempty"`
	Punch   []Range        `cbor:"4,keyasint,omitempty"` // becomes holes, before the extents are put
	Size    int64          `cbor:"5,keyasint,omitempty"` // the file is at least this long afterwards
	Mtime   Time           `cbor:"6,keyasint,omitempty"` // when a program wrote: mtime, and ctime if that is earlier; zero: unchanged
	// KillPriv clears the set-id bits, as a write by an ordinary user does.
	KillPriv bool `cbor:"7,keyasint,omitempty"`
	// Low is the session's low-water mark: every stripe that it began with a
	// lower ID is named by a command up to this one, or never will be.
	Low chunk.StripeID `cbor:"8,keyasint,omitempty"`
	// Held says that the data was accepted under the file's lease: without it the
	// kind is Expired, for others may have written since. Give gives it back.
	Held bool `cbor:"9,keyasint,omitempty"`
	Give bool `cbor:"10,keyasint,omitempty"`
}

// A Swap replaces extents by others that hold the same bytes, if the file's
// Data version is still the one named, else the kind is Conflict. No attribute
// but Data changes. Folding and re-encoding are swaps.
type Swap struct {
	Ino     Ino            `cbor:"1,keyasint,omitempty"`
	Data    uint64         `cbor:"2,keyasint,omitempty"`
	Extents []Extent       `cbor:"3,keyasint,omitempty"`
	Stripes []chunk.Stripe `cbor:"4,keyasint,omitempty"`
	Done    bool           `cbor:"5,keyasint,omitempty"` // the file needs no more folding
	Low     chunk.StripeID `cbor:"6,keyasint,omitempty"`
}

// A Range is Len bytes of a file from offset Off.
type Range struct {
	Off int64 `cbor:"1,keyasint,omitempty"`
	Len int64 `cbor:"2,keyasint,omitempty"`
}

// Layout says where a range of a file lies.
type Layout struct {
	Attr    Attr           `cbor:"1,keyasint,omitempty"`
	Extents []Extent       `cbor:"2,keyasint,omitempty"` // in order; those that touch the range
	Stripes []chunk.Stripe `cbor:"3,keyasint,omitempty"` // each stripe that they name, once
	// End is how far the answer reaches: the end of the range asked for, or
	// less when it would have been too long.
	End int64 `cbor:"4,keyasint,omitempty"`
}

// Usage counts what the file system holds.
type Usage struct {
	Inodes int64 `cbor:"1,keyasint,omitempty"`
	Bytes  int64 `cbor:"2,keyasint,omitempty"` // of data that extents hold
}

// RenameFlags are those of renameat2(2).
type RenameFlags uint32

// The flags; their values are the kernel's.
const (
	RenameNoReplace RenameFlags = 1
	RenameExchange  RenameFlags = 2
)

// CheckName says whether name can stand in a directory.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return Invalid
	case len(name) > NameMax:
		return NameTooLong
	}
	return nil
}
