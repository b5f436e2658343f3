package namespace

import (
	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// The commands of this room. Numbers are never reused.
const (
	OpInit        state.Op = 0x0100 // Init → meta.Attr
	OpCreate      state.Op = 0x0101 // Create → meta.Attr
	OpLink        state.Op = 0x0102 // Link → meta.Attr
	OpUnlink      state.Op = 0x0103 // Unlink → meta.Attr
	OpRmdir       state.Op = 0x0104 // Unlink → meta.Attr
	OpRename      state.Op = 0x0105 // Rename → nothing
	OpDrop        state.Op = 0x0106 // Drop → nothing
	OpSetAttr     state.Op = 0x0107 // SetAttr → meta.Attr
	OpWrite       state.Op = 0x0108 // meta.Write → meta.Attr
	OpSwap        state.Op = 0x0109 // meta.Swap → meta.Attr
	OpSetXattr    state.Op = 0x010a // SetXattr → nothing
	OpRemoveXattr state.Op = 0x010b // XattrName → nothing
	OpPurge       state.Op = 0x010c // Purge → Purged
	OpMove        state.Op = 0x010d // Moves → Moved
	OpBury        state.Op = 0x010e // StripeIDs → nothing
)

// The queries.
const (
	OpLookup   state.Op = 0x0140 // Name → meta.Attr
	OpAttr     state.Op = 0x0141 // Inode → meta.Attr
	OpEntries  state.Op = 0x0142 // Entries → EntriesReply
	OpParent   state.Op = 0x0143 // Inode → Inode
	OpReadlink state.Op = 0x0144 // Inode → Target
	OpLayout   state.Op = 0x0145 // Layout → meta.Layout
	OpXattr    state.Op = 0x0146 // XattrName → XattrValue
	OpXattrs   state.Op = 0x0147 // Inode → XattrNames
	OpUsage    state.Op = 0x0148 // nothing → meta.Usage
	OpStripes  state.Op = 0x0149 // Stripes → StripesReply
	OpStripe   state.Op = 0x014a // StripeIDs → StripesReply
	OpDead     state.Op = 0x014b // Dead → DeadReply
	OpUnnamed  state.Op = 0x014c // StripeIDs → StripeIDs
	OpFolds    state.Op = 0x014d // After → FoldsReply
	OpPurging  state.Op = 0x014e // After → PurgingReply
	OpCheck    state.Op = 0x014f // nothing → CheckReply
	OpStored   state.Op = 0x0150 // Stored → StoredReply
	OpAsked    state.Op = 0x0151 // Asked → AskedReply
)

// Limits of this room.
const (
	ListMax   = 4096    // things in one answer, and IDs in one request
	LayoutMax = 1024    // extents in one Layout
	replyMax  = 1 << 20 // bytes of names, attributes or inline data in one answer, about
)

// Init makes the root directory if there is none. The type bits of Mode are ignored.
type Init struct {
	Mode uint32 `cbor:"1,keyasint,omitempty"`
	UID  uint32 `cbor:"2,keyasint,omitempty"`
	GID  uint32 `cbor:"3,keyasint,omitempty"`
}

// Inode names an inode.
type Inode struct {
	Ino meta.Ino `cbor:"1,keyasint,omitempty"`
}

// Name is a name in a directory.
type Name struct {
	Parent meta.Ino `cbor:"1,keyasint,omitempty"`
	Name   string   `cbor:"2,keyasint,omitempty"`
}

// Create makes an inode and its first name.
type Create struct {
	Parent meta.Ino  `cbor:"1,keyasint,omitempty"`
	Name   string    `cbor:"2,keyasint,omitempty"`
	Node   meta.Node `cbor:"3,keyasint,omitempty"`
}

// Link gives an inode one more name.
type Link struct {
	Ino    meta.Ino `cbor:"1,keyasint,omitempty"`
	Parent meta.Ino `cbor:"2,keyasint,omitempty"`
	Name   string   `cbor:"3,keyasint,omitempty"`
}

// Unlink removes a name. If it was the last one of the inode Keep, that inode
// stays for the session of the command until Drop or the session's end. A file
// stays too for each other session that opens files, until it has answered Asked.
type Unlink struct {
	Parent meta.Ino `cbor:"1,keyasint,omitempty"`
	Name   string   `cbor:"2,keyasint,omitempty"`
	Keep   meta.Ino `cbor:"3,keyasint,omitempty"`
}

// Rename moves a name. Keep is as in Unlink, of what stood at the new name.
type Rename struct {
	Parent    meta.Ino         `cbor:"1,keyasint,omitempty"`
	Name      string           `cbor:"2,keyasint,omitempty"`
	NewParent meta.Ino         `cbor:"3,keyasint,omitempty"`
	NewName   string           `cbor:"4,keyasint,omitempty"`
	Flags     meta.RenameFlags `cbor:"5,keyasint,omitempty"`
	Keep      meta.Ino         `cbor:"6,keyasint,omitempty"`
}

// Drop gives up inodes, at most ListMax, that are kept for the session of the
// command, or that it is asked about. Keep are of the latter those that it goes
// on using, until Drop or its end.
type Drop struct {
	Inos []meta.Ino `cbor:"1,keyasint,omitempty"`
	Keep []meta.Ino `cbor:"2,keyasint,omitempty"`
}

// Asked asks for at most Limit inodes that have lost their last name to another
// session and wait for the one that asks to say with Drop whether it uses them.
type Asked struct {
	Limit int `cbor:"1,keyasint,omitempty"`
}

// AskedReply answers Asked.
type AskedReply struct {
	Inos []meta.Ino `cbor:"1,keyasint,omitempty"`
}

// SetAttr changes attributes of an inode.
type SetAttr struct {
	Ino meta.Ino     `cbor:"1,keyasint,omitempty"`
	Set meta.SetAttr `cbor:"2,keyasint,omitempty"`
}

// Entries asks for at most Limit names of a directory after the one given, in
// the order of their bytes.
type Entries struct {
	Dir   meta.Ino `cbor:"1,keyasint,omitempty"`
	After string   `cbor:"2,keyasint,omitempty"`
	Limit int      `cbor:"3,keyasint,omitempty"`
	Attrs bool     `cbor:"4,keyasint,omitempty"`
}

// EntriesReply answers Entries. What another session has X of (package lease) is
// without attributes.
type EntriesReply struct {
	Entries []meta.Entry `cbor:"1,keyasint,omitempty"`
	More    bool         `cbor:"2,keyasint,omitempty"`
}

// Target is where a symlink leads.
type Target struct {
	Target string `cbor:"1,keyasint,omitempty"`
}

// Layout asks where Size bytes of a file from Off lie.
type Layout struct {
	Ino  meta.Ino `cbor:"1,keyasint,omitempty"`
	Off  int64    `cbor:"2,keyasint,omitempty"`
	Size int64    `cbor:"3,keyasint,omitempty"`
	// Stored asks for what is stored, though a session with the lease of the file
	// may know better: for those who move bytes and do not change any.
	Stored bool `cbor:"4,keyasint,omitempty"`
}

// XattrName names an extended attribute.
type XattrName struct {
	Ino  meta.Ino `cbor:"1,keyasint,omitempty"`
	Name string   `cbor:"2,keyasint,omitempty"`
}

// SetXattr sets an extended attribute; Flags are those of setxattr(2).
type SetXattr struct {
	Ino   meta.Ino `cbor:"1,keyasint,omitempty"`
	Name  string   `cbor:"2,keyasint,omitempty"`
	Val   []byte   `cbor:"3,keyasint,omitempty"`
	Flags uint32   `cbor:"4,keyasint,omitempty"`
}

// XattrValue is the value of an extended attribute.
type XattrValue struct {
	Val []byte `cbor:"1,keyasint,omitempty"`
}

// XattrNames are the names of an inode's extended attributes, in order.
type XattrNames struct {
	Names []string `cbor:"1,keyasint,omitempty"`
}

// Purge goes on with what is left to remove of an inode, by at most Limit
// extents and attributes. Purging what is not in the queue succeeds.
type Purge struct {
	Ino   meta.Ino `cbor:"1,keyasint,omitempty"`
	Limit int      `cbor:"2,keyasint,omitempty"`
}

// Purged answers Purge.
type Purged struct {
	More bool `cbor:"1,keyasint,omitempty"` // ask again
}

// After asks for at most Limit rows of inodes with greater numbers.
type After struct {
	After meta.Ino `cbor:"1,keyasint,omitempty"`
	Limit int      `cbor:"2,keyasint,omitempty"`
}

// PurgingReply lists the purge queue, in order.
type PurgingReply struct {
	Inos []meta.Ino `cbor:"1,keyasint,omitempty"`
	More bool       `cbor:"2,keyasint,omitempty"`
}

// Reason says why a file is worth folding; the values are bits.
type Reason uint8

// The reasons.
const (
	Inlined  Reason = 1 << iota // inline bytes in a file over meta.InlineFile
	Small                       // many small stripes
	HalfDead                    // a stripe of whose bytes less than half are named
)

// A Fold is a file that is worth folding.
type Fold struct {
	Ino    meta.Ino  `cbor:"1,keyasint,omitempty"`
	Since  meta.Time `cbor:"2,keyasint,omitempty"` // when it was first found
	Reason Reason    `cbor:"3,keyasint,omitempty"`
}

// FoldsReply lists fold candidates in order of their numbers.
type FoldsReply struct {
	Folds []Fold `cbor:"1,keyasint,omitempty"`
	More  bool   `cbor:"2,keyasint,omitempty"`
}

// StripeIDs are at most ListMax stripes, in a request or an answer.
type StripeIDs struct {
	IDs []chunk.StripeID `cbor:"1,keyasint,omitempty"`
}

// Stripes asks for at most Limit stripes after the one given, in order of
// their IDs. If Short is not zero it is the code of the cluster, and only
// living stripes come that survive less, or are cut into fewer pieces, than it promises.
type Stripes struct {
	After chunk.StripeID `cbor:"1,keyasint,omitempty"`
	Limit int            `cbor:"2,keyasint,omitempty"`
	Short chunk.Code     `cbor:"3,keyasint,omitempty"`
}

// A StripeInfo is a row of the stripe table.
type StripeInfo struct {
	Stripe chunk.Stripe `cbor:"1,keyasint,omitempty"`
	Owner  meta.Ino     `cbor:"2,keyasint,omitempty"` // the file that it belongs to; 0: it is kept for something else
	Live   int64        `cbor:"3,keyasint,omitempty"` // bytes that extents name; if it is kept, all as often as it is named
	Died   meta.Time    `cbor:"4,keyasint,omitempty"` // when Live became zero
}

// StripesReply answers Stripes. While More, ask again after Next.
type StripesReply struct {
	Stripes []StripeInfo   `cbor:"1,keyasint,omitempty"`
	Next    chunk.StripeID `cbor:"2,keyasint,omitempty"`
	More    bool           `cbor:"3,keyasint,omitempty"`
}

// Stored asks how many shards of living stripes are on each store, among the
// stripes after the one given.
type Stored struct {
	After chunk.StripeID `cbor:"1,keyasint,omitempty"`
}

// A Load is what the stripe table says of one store.
type Load struct {
	Store  chunk.StoreID `cbor:"1,keyasint,omitempty"`
	Shards int64         `cbor:"2,keyasint,omitempty"`
	Bytes  int64         `cbor:"3,keyasint,omitempty"` // of these shards
}

// StoredReply answers Stored, in order of stores. While More, ask again after
// Next and add.
type StoredReply struct {
	Loads []Load         `cbor:"1,keyasint,omitempty"`
	Next  chunk.StripeID `cbor:"2,keyasint,omitempty"`
	More  bool           `cbor:"3,keyasint,omitempty"`
}

// Dead asks for at most Limit dead stripes that died before a time, the longest
// dead first. Those that the session which reserved them may still name are not
// among them, and are not buried.
type Dead struct {
	Before meta.Time `cbor:"1,keyasint,omitempty"`
	Limit  int       `cbor:"2,keyasint,omitempty"`
}

// DeadReply answers Dead.
type DeadReply struct {
	Stripes []StripeInfo `cbor:"1,keyasint,omitempty"`
	More    bool         `cbor:"2,keyasint,omitempty"`
}

// A Move says that a shard of a stripe now lies on another store.
type Move struct {
	Stripe chunk.StripeID `cbor:"1,keyasint,omitempty"`
	Index  uint8          `cbor:"2,keyasint,omitempty"`
	From   chunk.StoreID  `cbor:"3,keyasint,omitempty"`
	To     chunk.StoreID  `cbor:"4,keyasint,omitempty"`
}

// Moves are at most ListMax moves. Each is made if the shard is still where it
// says and no other shard of the stripe is on To.
type Moves struct {
	Moves []Move `cbor:"1,keyasint,omitempty"`
}

// Moved answers Moves, one for one.
type Moved struct {
	Done []bool `cbor:"1,keyasint,omitempty"`
}

// CheckReply is what Check found.
type CheckReply struct {
	Counts   Counts   `cbor:"1,keyasint,omitempty"`
	Problems []string `cbor:"2,keyasint,omitempty"` // the first ProblemsMax
	More     int      `cbor:"3,keyasint,omitempty"` // further problems
}

// ProblemsMax bounds the problems in a CheckReply.
const ProblemsMax = 1000

// Counts are what Check counted.
type Counts struct {
	Files    int64 `cbor:"1,keyasint,omitempty"`
	Dirs     int64 `cbor:"2,keyasint,omitempty"`
	Symlinks int64 `cbor:"3,keyasint,omitempty"`
	Special  int64 `cbor:"4,keyasint,omitempty"` // FIFOs, sockets and device nodes
	Entries  int64 `cbor:"5,keyasint,omitempty"`
	Extents  int64 `cbor:"6,keyasint,omitempty"`
	Inline   int64 `cbor:"7,keyasint,omitempty"` // of the extents
	Xattrs   int64 `cbor:"8,keyasint,omitempty"`
	Stripes  int64 `cbor:"9,keyasint,omitempty"`
	Dead     int64 `cbor:"10,keyasint,omitempty"` // of the stripes
	Orphans  int64 `cbor:"11,keyasint,omitempty"`
	Purging  int64 `cbor:"12,keyasint,omitempty"`
	Folds    int64 `cbor:"13,keyasint,omitempty"`
	Bytes    int64 `cbor:"14,keyasint,omitempty"` // that extents hold
}
