package vfs

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"dos/meta"
)

// cachedInodes is how many inodes nobody uses are remembered: some 15 MB.
const cachedInodes = 16384

// An inode is what the mount knows of one inode.
//
// What is dirty is in two places: active, which new writes change, and queue,
// the loads that are on their way, oldest first. The newest bytes are in
// active, then in the last load, and so on; below all of them is what the
// metadata service says. One goroutine at a time, the driver, stores the loads
// and commits them in order.
type inode struct {
	ino  meta.Ino
	refs int           // guarded by FS.mu: users; with zero it is in FS.idle
	elem *list.Element // guarded by FS.mu
	// changed is FS.changes as of the last change of attributes made here.
	changed atomic.Uint64

	names lock // of a directory: no name in it is removed or replaced but by the holder
	life  lock // shared to open, exclusive to remove the name that may be the last
	op    lock // shared to write, exclusive to change what is below the writes

	mu   sync.Mutex
	news chan struct{} // closed at the next change that somebody may wait for; nil if nobody does

	// The committed attributes. Size, Mtime and Bytes are right whenever known
	// is set, because whatever changes them is serialised; the rest when fresh is.
	attr         meta.Attr
	known, fresh bool
	gen          uint64 // counts the ends of operations that change attributes

	opens   int
	writers int  // opens for writing
	kept    bool // a name was removed with keep; while set, the inode is held
	gone    bool // given up: it exists no more

	held      bool      // X is ours; while set, the inode is held
	shared    bool      // S is ours, as held
	believed  time.Time // until then the kernel may not ask for attributes again, because S is ours
	altering  int       // operations of this mount that change the inode
	asks      int       // questions that S would have answered
	asked     time.Time // the first of them
	apart     time.Time // until then S is not taken
	moving    bool      // a lease is being taken or given back
	owing     bool      // moving, until it has been given back: nobody knows whether it is ours
	giving    bool      // the command that stores the last dirty data gives it back
	doomed    bool      // what the driver has is of a session that is over
	used      time.Time // when something was last written under X, or asked for under S
	recalled  time.Time // when others asked for it last
	contended time.Time // until then it is not kept
	paged     bool      // pages is known
	pages     uint64    // attr.Data of what the kernel may have cached
	toldSize  int64     // what the kernel was told last
	toldMtime meta.Time

	xnames map[string]bool // the names of its extended attributes; nil: not known
	xgen   uint64

	active   layer
	queue    []*load
	seq      uint64    // of the last load
	stored   uint64    // seq of the last load that was committed
	frozen   bool      // nothing may move from active to queue but by the holder of op
	driving  bool      // there is a driver
	wtime    meta.Time // of the last write that is not committed; zero: none
	kill     bool      // an uncommitted write clears the set-id bits
	dirtyEnd int64     // the offset after the last dirty byte
	next     int64     // where a writer in sequence would go on
	run      int64     // bytes written in sequence up to there

	fails   uint64 // counts attempts to store that failed
	err     error  // of the last one
	backoff time.Duration
	retry   time.Time // not before, unless somebody asks
	lost    uint64    // counts the times that dirty data was dropped
	lostErr error     // why, the last time
	lostNew bool      // nobody has been told

	laygen uint64 // counts the commits that changed where bytes lie
}

func newInode(ino meta.Ino, mem *budget) *inode {
	return &inode{ino: ino, names: newLock(), life: newLock(), op: newLock(), active: layer{mem: mem}}
}

// get returns the inode and holds it until put.
func (fs *FS) get(ino meta.Ino) *inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.inodes[ino]
	if n == nil {
		n = newInode(ino, &fs.mem)
		fs.inodes[ino] = n
	}
	fs.holdLocked(n)
	return n
}

// holdLocked counts another user. FS.mu is held.
func (fs *FS) holdLocked(n *inode) {
	n.refs++
	if n.elem != nil {
		fs.idle.Remove(n.elem)
		n.elem = nil
	}
}

// peek is get of an inode that is known already, or nil.
func (fs *FS) peek(ino meta.Ino) *inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.inodes[ino]
	if n != nil {
		fs.holdLocked(n)
	}
	return n
}

// put ends get. n.mu may be held.
func (fs *FS) put(n *inode) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n.refs--
	if n.refs > 0 {
		return
	}
	n.elem = fs.idle.PushFront(n)
	if fs.idle.Len() > cachedInodes {
		old := fs.idle.Remove(fs.idle.Back()).(*inode)
		old.elem = nil
		delete(fs.inodes, old.ino)
		fs.forgotten = max(fs.forgotten, old.changed.Load())
		fs.layouts.drop(old.ino, 0, 1<<63-1)
	}
}

// wait returns a channel that is closed at the next change. mu is held.
func (n *inode) wait() <-chan struct{} {
	if n.news == nil {
		n.news = make(chan struct{})
	}
	return n.news
}

// tell wakes who waits. mu is held.
func (n *inode) tell() {
	if n.news != nil {
		close(n.news)
		n.news = nil
	}
}

// begin starts an operation that changes attributes; end takes its token.
func (n *inode) begin() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gen
}

// end takes in what an operation said of the attributes afterwards. If others
// ended since it began, nobody knows whose answer is the last: they are asked
// for again. serial says that the operation is one of those that are
// serialised (a write or SetAttr), so that size and mtime are right anyway.
// mu is held.
func (fs *FS) end(n *inode, began uint64, a meta.Attr, err error, serial bool) {
	alone := n.gen == began
	n.gen++
	if n.held && n.paged && err == nil && n.pages == n.attr.Data {
		n.pages = a.Data // the kernel saw what was written
	}
	n.changed.Store(fs.changes.Add(1))
	if err != nil {
		n.fresh = false
		return
	}
	if alone || serial {
		n.attr, n.known = a, true
	}
	n.fresh = alone && (n.leased() || !fs.Shared())
}

// touch says that an operation changed the inode's attributes.
func (fs *FS) touch(ino meta.Ino) {
	n := fs.get(ino)
	n.mu.Lock()
	fs.end(n, n.gen, meta.Attr{}, meta.Conflict, false)
	n.mu.Unlock()
	fs.put(n)
}

// look returns what stat shows.
func (fs *FS) look(ctx context.Context, n *inode) (meta.Attr, error) {
	if fs.Shared() {
		return fs.ask(ctx, n)
	}
	if err := fs.fetch(ctx, n); err != nil {
		return meta.Attr{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shown(), nil
}

// ask is look where other mounts may change the inode: only under a lease is it
// known what its attributes are.
func (fs *FS) ask(ctx context.Context, n *inode) (a meta.Attr, err error) {
	for range 16 { // as in fetch
		n.mu.Lock()
		mine, err := fs.sure(ctx, n)
		gone, gen := n.gone, n.gen
		if err == nil && mine && n.fresh && !gone {
			defer n.mu.Unlock()
			return n.shown(), nil
		}
		n.mu.Unlock()
		if err == nil && gone {
			err = meta.NotExist
		}
		if err == nil {
			a, err = fs.cfg.Meta.Attr(ctx, n.ino)
		}
		if err != nil {
			return meta.Attr{}, err
		}
		n.mu.Lock()
		if n.gen == gen {
			defer n.mu.Unlock()
			n.attr, n.known, n.fresh = a, true, n.leased()
			return n.shown(), nil
		}
		n.mu.Unlock()
	}
	return a, nil
}

// fetch makes the attributes fresh.
func (fs *FS) fetch(ctx context.Context, n *inode) error {
	for range 16 { // each round more means that another operation succeeded meanwhile
		n.mu.Lock()
		fresh, gone, gen := n.fresh, n.gone, n.gen
		n.mu.Unlock()
		switch {
		case gone:
			return meta.NotExist
		case fresh:
			return nil
		}
		a, err := fs.cfg.Meta.Attr(ctx, n.ino)
		if err != nil {
			return err
		}
		n.mu.Lock()
		if n.gen == gen {
			n.attr, n.known, n.fresh = a, true, true
		}
		n.mu.Unlock()
	}
	return nil
}

// shown is what stat shows: the committed attributes and what writes that are
// not committed will make of them. mu is held.
func (n *inode) shown() meta.Attr {
	a := n.attr
	if n.blank() {
		return a
	}
	dirty := n.active.bytes
	for _, l := range n.queue {
		dirty += l.bytes
	}
	a.Size = n.size()
	whole := (a.Size + 4095) / 4096 * 4096
	a.Bytes = max(a.Bytes, min(a.Bytes+dirty, whole))
	if n.wtime != 0 {
		a.Mtime = n.wtime
		a.Ctime = max(a.Ctime, n.wtime)
	}
	if n.kill {
		a.Mode = withoutSetID(a.Mode)
	}
	return a
}

// withoutSetID is the mode after a write by an ordinary user.
func withoutSetID(mode uint32) uint32 {
	mode &^= meta.SetUID
	if mode&0o010 != 0 {
		mode &^= meta.SetGID
	}
	return mode
}

// clean says that nothing is dirty. mu is held.
func (n *inode) clean() bool { return n.active.empty() && len(n.queue) == 0 }

// blank says that nothing dirty is to be seen: what a session that is over has
// left is no part of the file. mu is held.
func (n *inode) blank() bool { return n.doomed || n.clean() }

// size is the file's length, what is dirty included. mu is held.
func (n *inode) size() int64 {
	if n.blank() {
		return n.attr.Size
	}
	return max(n.attr.Size, n.dirtyEnd)
}

// orphan says that no name leads here any more. mu is held.
func (n *inode) orphan() bool { return n.gone || n.kept && n.fresh && n.attr.Nlink == 0 }
