package cache

import (
	"time"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpMake     state.Op = 0x0a00 // Make → Changed
	OpRemove   state.Op = 0x0a01 // Named → Changed
	OpSet      state.Op = 0x0a02 // Set → Changed
	OpMkdir    state.Op = 0x0a03 // Dir → Changed
	OpRmdir    state.Op = 0x0a04 // Dir → Changed
	OpServe    state.Op = 0x0a05 // Serve → Changed
	OpKnow     state.Op = 0x0a06 // Know → nothing
	OpWeigh    state.Op = 0x0a07 // Weigh → Changed
	OpDistrust state.Op = 0x0a08 // Distrust → Changed

	OpFollow state.Op = 0x0a40 // Follow → Overview
	OpBucket state.Op = 0x0a41 // Named → Bucket
	OpIsDir  state.Op = 0x0a42 // Dir → Is
	OpDirs   state.Op = 0x0a43 // Dirs → DirList
)

// Limits of this room.
const (
	// BucketsMax bounds the buckets: all of them are told to every machine.
	BucketsMax = 1000
	// DirsMax bounds the directories in a bucket.
	DirsMax = 10_000
	// KeyMax bounds a key, in bytes: the longest path that the kernel passes.
	KeyMax = 4096
	// ValueMax bounds a value, in bytes: what is larger is a file.
	ValueMax = 4 << 20
	// MembersMax bounds the machines with entries.
	MembersMax = 256
	// ReplicasMax bounds the machines that have one entry.
	ReplicasMax = 5
	// MapsMax bounds the maps that are kept. Whoever misses one that is not kept any
	// more waits for everybody, and begins empty.
	MapsMax = 16
	// WeightMax bounds a weight.
	WeightMax = 1 << 20
	// ListMax bounds the names in one answer.
	ListMax = 1024
	// ttlMax bounds the life of entries: some hundred years.
	ttlMax = 100 * 365 * 24 * time.Hour
	// textMax bounds a machine's name and address, in bytes.
	textMax = 512
)

// A Tier says where the values of a bucket are.
type Tier uint8

// The tiers.
const (
	Memory Tier = iota
	Disk        // values go to disk at once, only their keys are in memory
	Both        // values go to disk when memory has no room for them
)

// A Policy says which entry goes first when there is no room.
type Policy uint8

// The policies.
const (
	LRU  Policy = iota // the one used longest ago
	LFU                // one of those used least
	FIFO               // the one written longest ago
)

// Settings are a bucket's.
type Settings struct {
	Max      int64         `cbor:"1,keyasint,omitempty"` // bytes on all machines together; 0: what they have
	Tier     Tier          `cbor:"2,keyasint,omitempty"`
	TTL      time.Duration `cbor:"3,keyasint,omitempty"` // of entries written without one; 0: they stay
	Policy   Policy        `cbor:"4,keyasint,omitempty"`
	Replicas int           `cbor:"5,keyasint,omitempty"` // machines that have an entry; at least 1
}

// A Bucket describes a bucket.
type Bucket struct {
	ID         uint64    `cbor:"1,keyasint,omitempty"` // of no other, ever
	Name       string    `cbor:"2,keyasint,omitempty"`
	Generation uint64    `cbor:"3,keyasint,omitempty"` // grows when it is cleared
	UID        uint32    `cbor:"4,keyasint,omitempty"`
	GID        uint32    `cbor:"5,keyasint,omitempty"`
	Mode       uint32    `cbor:"6,keyasint,omitempty"` // permissions
	Mtime      meta.Time `cbor:"7,keyasint,omitempty"`
	Settings   Settings  `cbor:"8,keyasint,omitempty"`
	// Placed is the version at which Replicas changed: copies from before do not count.
	Placed uint64 `cbor:"9,keyasint,omitempty"`
	Dirs   int    `cbor:"10,keyasint,omitempty"` // directories in it
}

// Make makes a bucket.
type Make struct {
	Name string `cbor:"1,keyasint,omitempty"`
	UID  uint32 `cbor:"2,keyasint,omitempty"`
	GID  uint32 `cbor:"3,keyasint,omitempty"`
	Mode uint32 `cbor:"4,keyasint,omitempty"`
}

// Named names a bucket. Remove is NotEmpty while it has directories.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// Set changes what is not nil.
type Set struct {
	Name     string         `cbor:"1,keyasint,omitempty"`
	UID      *uint32        `cbor:"2,keyasint,omitempty"`
	GID      *uint32        `cbor:"3,keyasint,omitempty"`
	Mode     *uint32        `cbor:"4,keyasint,omitempty"`
	Max      *int64         `cbor:"5,keyasint,omitempty"`
	Tier     *Tier          `cbor:"6,keyasint,omitempty"`
	TTL      *time.Duration `cbor:"7,keyasint,omitempty"`
	Policy   *Policy        `cbor:"8,keyasint,omitempty"`
	Replicas *int           `cbor:"9,keyasint,omitempty"`
	Clear    bool           `cbor:"10,keyasint,omitempty"` // all entries are gone
}

// Changed answers a change: it is in force when all members know the version.
type Changed struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
}

// Dir names a directory in a bucket: a key's path without its last part.
type Dir struct {
	Bucket string `cbor:"1,keyasint,omitempty"`
	Path   string `cbor:"2,keyasint,omitempty"` // without slashes around it
}

// Is answers IsDir.
type Is struct {
	Dir bool `cbor:"1,keyasint,omitempty"`
}

// Dirs asks for the directories in a directory, "" or a path, after a name.
type Dirs struct {
	Bucket string `cbor:"1,keyasint,omitempty"`
	Path   string `cbor:"2,keyasint,omitempty"`
	After  string `cbor:"3,keyasint,omitempty"`
	Limit  int    `cbor:"4,keyasint,omitempty"`
}

// DirList answers Dirs.
type DirList struct {
	Names []string `cbor:"1,keyasint,omitempty"`
	More  bool     `cbor:"2,keyasint,omitempty"`
}

// Serve says that the session of the command has entries from now on, and none yet, on
// a machine. What another session of that machine had is gone.
type Serve struct {
	Node   string `cbor:"1,keyasint,omitempty"`
	Addr   string `cbor:"2,keyasint,omitempty"` // HOST:PORT
	Weight uint32 `cbor:"3,keyasint,omitempty"` // its share of entries, beside others'
}

// Know says that the session does what a version says and nothing that an older one said.
type Know struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
}

// Weigh changes the weight of the session.
type Weigh struct {
	Weight uint32 `cbor:"1,keyasint,omitempty"`
}

// Distrust says that a member, whose Fresh is as given, may not have got what its copies
// should be: all that it has do not count. If its Fresh is another, nothing changes.
type Distrust struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Fresh   uint64         `cbor:"2,keyasint,omitempty"`
}

// A Member is a machine with entries.
type Member struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Node    string         `cbor:"2,keyasint,omitempty"`
	Addr    string         `cbor:"3,keyasint,omitempty"`
	Weight  uint32         `cbor:"4,keyasint,omitempty"`
	Known   uint64         `cbor:"5,keyasint,omitempty"` // the version that it told it knows
	// Fresh is the version at which it began, or was distrusted: its copies of entries
	// from before do not count, and it gets others from when it knows of it.
	Fresh uint64 `cbor:"6,keyasint,omitempty"`
}

// A Place is a member in a map.
type Place struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Node    string         `cbor:"2,keyasint,omitempty"`
	Weight  uint32         `cbor:"3,keyasint,omitempty"`
}

// A Map is who had entries from one version, its epoch, to the next map's.
type Map struct {
	Epoch  uint64  `cbor:"1,keyasint,omitempty"`
	Places []Place `cbor:"2,keyasint,omitempty"`
}

// Follow asks for what there is. Whoever runs the state may hold the answer back for a
// while as long as the stamp is Seen. Buckets are only in it if the version is another.
type Follow struct {
	Seen    uint64 `cbor:"1,keyasint,omitempty"`
	Version uint64 `cbor:"2,keyasint,omitempty"`
}

// An Overview is all that this room knows but the directories.
type Overview struct {
	Stamp   uint64   `cbor:"1,keyasint,omitempty"` // grows with each change of anything
	Version uint64   `cbor:"2,keyasint,omitempty"`
	Members []Member `cbor:"3,keyasint,omitempty"`
	Maps    []Map    `cbor:"4,keyasint,omitempty"` // the last one is in force
	Buckets []Bucket `cbor:"5,keyasint,omitempty"`
	// Whole says that Buckets are all there are; else they are as they were.
	Whole bool `cbor:"6,keyasint,omitempty"`
}
