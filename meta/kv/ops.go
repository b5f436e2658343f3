package kv

import (
	"time"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpMake     state.Op = 0x0600 // Make → nothing
	OpDrop     state.Op = 0x0601 // Named → nothing
	OpSetTable state.Op = 0x0602 // SetTable → nothing
	OpPut      state.Op = 0x0603 // Put → Written
	OpDelete   state.Op = 0x0604 // Delete → Written
	OpSet      state.Op = 0x0605 // Set → nothing
	OpRename   state.Op = 0x0606 // Rename → Written
	OpStage    state.Op = 0x0607 // Stage → nothing
	OpUnstage  state.Op = 0x0608 // Blob → nothing
	OpExpire   state.Op = 0x0609 // nothing → Expired
	OpUpdate   state.Op = 0x060a // Update → Updated

	OpTables state.Op = 0x0640 // Tables → TableList
	OpTable  state.Op = 0x0641 // Named → Table
	OpGet    state.Op = 0x0642 // Get → Entry
	OpPart   state.Op = 0x0643 // Part → PartData
	OpScan   state.Op = 0x0644 // Scan → Scanned
	OpList   state.Op = 0x0645 // List → Scanned
	OpFollow state.Op = 0x0646 // Follow → Changes
	OpDue    state.Op = 0x0647 // nothing → Due
	OpGets   state.Op = 0x0648 // Gets → Found
)

// Limits of this room.
const (
	// KeyMax bounds a key, in bytes: what a path of files may have.
	KeyMax = 2048
	// ValueMax bounds a value: what is larger is a file.
	ValueMax = 1 << 20
	// InlineMax is how large a value may be that a command carries whole. Commands
	// of a few of these fit one entry of the log.
	InlineMax = 128 << 10
	// PartMax bounds a part of a larger one.
	PartMax = 256 << 10
	// FeedMax is how many changes are kept.
	FeedMax = 10_000
	// ListMax bounds the things in one answer, and answerMax their bytes.
	ListMax   = 1024
	answerMax = 1 << 20
	// expireMax bounds how many values go in one command.
	expireMax = 128
	// TablesMax bounds the tables.
	TablesMax = 10_000
)

// A Table describes a table.
type Table struct {
	Name  string        `cbor:"1,keyasint,omitempty"`
	UID   uint32        `cbor:"2,keyasint,omitempty"`
	GID   uint32        `cbor:"3,keyasint,omitempty"`
	Mode  uint32        `cbor:"4,keyasint,omitempty"` // permissions
	TTL   time.Duration `cbor:"5,keyasint,omitempty"` // of what is put without one; 0: none
	Quota int64         `cbor:"6,keyasint,omitempty"` // bytes of keys and values; 0: none
	Count int64         `cbor:"7,keyasint,omitempty"` // keys, directories too
	Bytes int64         `cbor:"8,keyasint,omitempty"` // of keys and values
	Rev   uint64        `cbor:"9,keyasint,omitempty"` // of the last change in it
	Mtime meta.Time     `cbor:"10,keyasint,omitempty"`
}

// Make makes a table.
type Make struct {
	Name string `cbor:"1,keyasint,omitempty"`
	UID  uint32 `cbor:"2,keyasint,omitempty"`
	GID  uint32 `cbor:"3,keyasint,omitempty"`
	Mode uint32 `cbor:"4,keyasint,omitempty"`
}

// Named names a table. Drop is NotEmpty while it has keys.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// SetTable changes what is not nil.
type SetTable struct {
	Name  string         `cbor:"1,keyasint,omitempty"`
	UID   *uint32        `cbor:"2,keyasint,omitempty"`
	GID   *uint32        `cbor:"3,keyasint,omitempty"`
	Mode  *uint32        `cbor:"4,keyasint,omitempty"`
	TTL   *time.Duration `cbor:"5,keyasint,omitempty"`
	Quota *int64         `cbor:"6,keyasint,omitempty"`
}

// A Blob is the parts of a large value, by who staged it.
type Blob struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Number  uint64         `cbor:"2,keyasint,omitempty"`
	Size    int            `cbor:"3,keyasint,omitempty"` // bytes of all parts
}

// Stage keeps one part for a later Put of the session. Parts come in order; each but
// the last has PartMax bytes.
type Stage struct {
	Number uint64 `cbor:"1,keyasint,omitempty"`
	Part   uint32 `cbor:"2,keyasint,omitempty"`
	Data   []byte `cbor:"3,keyasint,omitempty"`
}

// Put makes a value or puts another in its place, which then keeps owner, mode and
// ttl unless this says otherwise. A key that ends in a slash makes a directory: it
// has no data.
type Put struct {
	Table string  `cbor:"1,keyasint,omitempty"`
	Key   string  `cbor:"2,keyasint,omitempty"`
	Data  []byte  `cbor:"3,keyasint,omitempty"`
	Blob  *Blob   `cbor:"4,keyasint,omitempty"` // in the place of Data
	Only  *uint64 `cbor:"5,keyasint,omitempty"` // the version that must be there
	// Of a new one.
	UID  uint32         `cbor:"6,keyasint,omitempty"`
	GID  uint32         `cbor:"7,keyasint,omitempty"`
	Mode uint32         `cbor:"8,keyasint,omitempty"`
	TTL  *time.Duration `cbor:"9,keyasint,omitempty"` // 0: it stays
}

// Written answers a change with its revision.
type Written struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
}

// Delete removes a key; of a directory it is NotEmpty while keys are below it.
type Delete struct {
	Table string  `cbor:"1,keyasint,omitempty"`
	Key   string  `cbor:"2,keyasint,omitempty"`
	Only  *uint64 `cbor:"3,keyasint,omitempty"`
}

// Set changes what is not nil. That is no new version.
type Set struct {
	Table string         `cbor:"1,keyasint,omitempty"`
	Key   string         `cbor:"2,keyasint,omitempty"`
	UID   *uint32        `cbor:"3,keyasint,omitempty"`
	GID   *uint32        `cbor:"4,keyasint,omitempty"`
	Mode  *uint32        `cbor:"5,keyasint,omitempty"`
	TTL   *time.Duration `cbor:"6,keyasint,omitempty"`
	Touch bool           `cbor:"7,keyasint,omitempty"` // its time to live begins anew
}

// Rename moves a value to another key, over what is there unless NoReplace.
// Directories stay where they are.
type Rename struct {
	Table     string `cbor:"1,keyasint,omitempty"`
	Key       string `cbor:"2,keyasint,omitempty"`
	ToTable   string `cbor:"3,keyasint,omitempty"`
	ToKey     string `cbor:"4,keyasint,omitempty"`
	NoReplace bool   `cbor:"5,keyasint,omitempty"`
}

// Expired answers Expire: More says that there are more whose time is over.
type Expired struct {
	More bool `cbor:"1,keyasint,omitempty"`
}

// Tables asks for tables after the name given.
type Tables struct {
	After string `cbor:"1,keyasint,omitempty"`
	Limit int    `cbor:"2,keyasint,omitempty"`
}

// TableList answers Tables.
type TableList struct {
	Tables []Table `cbor:"1,keyasint,omitempty"`
	More   bool    `cbor:"2,keyasint,omitempty"`
}

// Get asks for what is at a key; with Data, for the bytes too. A key without a slash
// at its end may be a directory.
type Get struct {
	Table string `cbor:"1,keyasint,omitempty"`
	Key   string `cbor:"2,keyasint,omitempty"`
	Data  bool   `cbor:"3,keyasint,omitempty"`
}

// An Entry is what is at a key.
type Entry struct {
	Key     string        `cbor:"1,keyasint,omitempty"`
	Version uint64        `cbor:"2,keyasint,omitempty"` // 0: a directory that nobody made
	UID     uint32        `cbor:"3,keyasint,omitempty"`
	GID     uint32        `cbor:"4,keyasint,omitempty"`
	Mode    uint32        `cbor:"5,keyasint,omitempty"`
	Size    int           `cbor:"6,keyasint,omitempty"`
	Mtime   meta.Time     `cbor:"7,keyasint,omitempty"`
	TTL     time.Duration `cbor:"8,keyasint,omitempty"`
	Expires meta.Time     `cbor:"9,keyasint,omitempty"`
	Dir     bool          `cbor:"10,keyasint,omitempty"`
	Data    []byte        `cbor:"11,keyasint,omitempty"`
	Blob    *Blob         `cbor:"12,keyasint,omitempty"` // where Data is, if it is large
}

// Part asks for one part of a large value.
type Part struct {
	Blob Blob   `cbor:"1,keyasint,omitempty"`
	Part uint32 `cbor:"2,keyasint,omitempty"`
}

// PartData answers Part.
type PartData struct {
	Data []byte `cbor:"1,keyasint,omitempty"`
}

// Scan asks for values with keys ≥ From and < To, in order of their bytes; an empty
// To means no end.
type Scan struct {
	Table string `cbor:"1,keyasint,omitempty"`
	From  string `cbor:"2,keyasint,omitempty"`
	To    string `cbor:"3,keyasint,omitempty"`
	Limit int    `cbor:"4,keyasint,omitempty"`
	Data  bool   `cbor:"5,keyasint,omitempty"` // with the bytes, of small ones
}

// List asks for what is in a directory, "" or with a slash at its end, after the
// name given: whole keys, those of directories with a slash at their end.
type List struct {
	Table string `cbor:"1,keyasint,omitempty"`
	Dir   string `cbor:"2,keyasint,omitempty"`
	After string `cbor:"3,keyasint,omitempty"`
	Limit int    `cbor:"4,keyasint,omitempty"`
}

// Scanned answers Scan and List.
type Scanned struct {
	Entries []Entry `cbor:"1,keyasint,omitempty"`
	More    bool    `cbor:"2,keyasint,omitempty"`
	Rev     uint64  `cbor:"3,keyasint,omitempty"` // of the last change anywhere: Follow goes on there
}

// Follow asks for the changes in a table after a revision. It is meta.Conflict if
// some of those are not kept any more. The member holds the answer back until there
// is one.
type Follow struct {
	Table string `cbor:"1,keyasint,omitempty"`
	After uint64 `cbor:"2,keyasint,omitempty"`
	Limit int    `cbor:"3,keyasint,omitempty"`
}

// Changes answers Follow. The next Follow is after Rev.
type Changes struct {
	Changes []Change `cbor:"1,keyasint,omitempty"`
	Rev     uint64   `cbor:"2,keyasint,omitempty"`
}

// A Verb says what a change did.
type Verb uint8

const (
	WasPut Verb = 1 + iota
	WasDeleted
	WasExpired
)

// A Change is one line of the feed.
type Change struct {
	Rev   uint64    `cbor:"1,keyasint,omitempty"`
	Verb  Verb      `cbor:"2,keyasint,omitempty"`
	Table string    `cbor:"3,keyasint,omitempty"`
	Key   string    `cbor:"4,keyasint,omitempty"`
	Size  int       `cbor:"5,keyasint,omitempty"`
	Time  meta.Time `cbor:"6,keyasint,omitempty"`
}

// Due says when the next value's time is over; 0: none has one.
type Due struct {
	At meta.Time `cbor:"1,keyasint,omitempty"`
}
