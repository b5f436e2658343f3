// Package vfs is the stored tree of one mount: open files, cached attributes,
// written data that is not stored yet, and reads. It knows neither the kernel's
// protocol (package fuse), nor how bytes are kept (chunk/stripe) or truth is
// agreed on (meta): it asks Meta and Data.
//
// # What is cached
//
// Without Config.Leases the session is the only client, so attributes are true as long as every
// change passes through here. They are kept while an inode is in use or has
// unstored data, and for the last 16,384 others. Where bytes lie is cached for
// 30 s at most, since folding moves them. Times of access change only when a
// program sets them, as with the mount option noatime.
//
// With Config.Leases other mounts use the tree too, and what is said of
// attributes and data holds only for a file that this mount has a lease of (package
// meta/lease). It takes X with the first write, or when it makes the file, and gives
// it back when others ask for it, with a close that stores something, or some time
// after the last use; what is dirty is stored first. Without a lease attributes are asked
// for each time, and extents are used again only if the metadata service has
// just named the version of the data that they are of. When the session is over,
// everything is dropped (Fenced); whatever command of write-back comes late is
// refused, because it says that it was accepted under X.
//
// An open file that is asked for again and again gets S, in the background: neither
// the first read nor a small file read once pays for it. It goes when others ask for
// it, when nobody has asked here for a while, and before this mount itself changes
// the file (alter); then it is not taken again for some seconds. Under S the one who
// calls may be told for how long to believe the attributes (AttrFor), and is told
// before S goes that it is over (OnDoubt).
//
// # When data leaves
//
// Every change but of data is one request, done when it returns. Data stays in
// memory, at most Config.Dirty of it over all files, until
//   - fsync, a close, or each write where O_SYNC, O_DSYNC or the mount says so,
//   - it is Config.Age old,
//   - an aligned stripe of 4 MiB has been written in sequence,
//   - memory is short: full stripes first, then the oldest.
//
// Data that would make a file longer leaves in file order, so that a crash never
// shows a hole where a program wrote; one command commits up to 4,096 extents,
// and more than that are several commands, in file order. Within that, what
// was written and not synced before a crash is there or not, a command at a time.
// Attributes are set, names are given to a file (rename) and ranges are punched only
// after the file's earlier data was stored. Truncation stores what lies below the new end and
// forgets the rest. An open file without a name is stored only when memory is
// short: after a crash it is gone in any case.
//
// # When storing fails
//
// What may pass is tried again, with pauses, and the data stays dirty; an
// fsync or close meanwhile tries at once and returns the error if it fails
// too. Success of fsync therefore always means stored. Data is dropped when
// trying again is hopeless, and when the cluster is full at a close: the close
// returns NoSpace, as on a local disk, and the mount is not stuck. Each open
// handle is told once of data that was dropped. When it is known that there
// is no room, writes are refused before that.
//
// # Locks
//
// In order: inode.names of directories by number, inode.life, inode.op,
// Dir.mu, inode.mu, then FS.mu, budget.mu, layouts.mu and room.mu, which are leaves. The
// first four are held across calls to Meta and Data; who waits for them can give
// up. A driver, which stores and commits one inode's data, takes none of those
// four, so an operation that holds them may wait for it. Reads take inode.mu
// alone, and never during a call.
package vfs

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dos/chunk"
	"dos/meta"
)

// ErrNoData says that Seek found nothing: ENXIO to a program.
var ErrNoData = errors.New("vfs: no data at or after the offset")

// Config says what an FS is made of. Zero fields mean the defaults named.
type Config struct {
	Meta Meta
	Data Data
	// Leases is for a tree that other mounts use too. Nil: this one is the only one.
	Leases Leases
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
type FS struct {
	cfg     Config
	mem     budget
	flying  atomic.Int64  // bytes of data in loads
	slots   chan *slot    // those that are free
	commits chan struct{} // one for each command under way
	changes atomic.Uint64 // counts changes of attributes
	layouts layouts
	room    room
	epoch   atomic.Uint64 // counts calls of Fenced
	apart   time.Duration // how long S is not taken after it went or was refused: contendedFor
	making  lock          // shared to make a file with a lease, until it is known here

	wake  chan struct{} // jobs or toReap has more
	press chan struct{} // a writer waits for memory
	done  chan struct{} // closed when Run returns
	work  sync.WaitGroup

	mu        sync.Mutex
	inodes    map[meta.Ino]*inode          // guarded by mu, as all below
	idle      list.List                    // of *inode that nobody holds, the last used in front
	forgotten uint64                       // the largest inode.changed among those no longer in inodes
	dirty     map[*inode]bool              // those with dirty data; each is held
	jobs      []func(work context.Context) // that Run is to run
	known     map[meta.Ino]uint32          // how often more Hold was called than Forget
	toReap    []*inode                     // perhaps without a name and not in use any more; each is held
	toDrop    []meta.Ino                   // that Meta shall drop
	held      map[*inode]bool              // those with a lease, X or S; each is held
	doubt     func(meta.Ino)               // see OnDoubt; nil: nobody is to be told
	owed      map[*inode]bool              // those whose lease has to be given back; each is held
	returning bool
	reaping   bool
	stopped   bool
}

const (
	defaultDirty = 256 << 20
	leastDirty   = 16 << 20
	defaultAge   = 5 * time.Second
	defaultWait  = 30 * time.Second
)

// New returns an FS. Nothing leaves it before Run.
func New(cfg Config) *FS {
	if cfg.Dirty == 0 {
		cfg.Dirty = defaultDirty
	}
	cfg.Dirty = max(cfg.Dirty, leastDirty)
	if cfg.Age == 0 {
		cfg.Age = defaultAge
	}
	if cfg.Wait == 0 {
		cfg.Wait = defaultWait
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	fs := &FS{
		cfg:     cfg,
		commits: make(chan struct{}, maxCommits),
		wake:    make(chan struct{}, 1),
		press:   make(chan struct{}, 1),
		done:    make(chan struct{}),
		inodes:  make(map[meta.Ino]*inode),
		dirty:   make(map[*inode]bool),
		known:   make(map[meta.Ino]uint32),
		making:  newLock(),
		apart:   contendedFor,
		held:    make(map[*inode]bool),
		owed:    make(map[*inode]bool),
	}
	// An eighth of the memory is for putting pieces of stripes together.
	slots := max(2, min(maxSlots, cfg.Dirty/8/chunk.MaxStripe))
	fs.slots = make(chan *slot, slots)
	for range slots {
		fs.slots <- new(slot)
	}
	fs.mem.limit = cfg.Dirty - slots*chunk.MaxStripe
	return fs
}
