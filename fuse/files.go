package fuse

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/fuse/vfs"
	"dos/meta"
	"dos/procfs"
)

// files answers the kernel's requests. Its methods are called concurrently,
// each in a goroutine of go-fuse. Requests and their buffers are go-fuse's: they
// are used only until the method returns.
type files struct {
	raw.RawFileSystem // answers ENOSYS to what is not here: the kernel then stops asking

	ctx     context.Context // of plain operations; never ends
	fs      *vfs.FS
	root    meta.Ino
	mux     *procfs.Mux // nil if there are no special directories
	timeout time.Duration
	failed  func(op string, err error)
	log     *slog.Logger
	fence   Fence // nil: none
	started meta.Time
	ending  atomic.Bool // the mount is detached: write no more
	// dropPages has the kernel forget the pages of a node, those in dirty maps
	// written first. Reads and writes of the node must not wait for its caller.
	dropPages func(nodeid uint64)
	dropName  func(dir uint64, name string) // likewise, of what a name stands for
	// dropAttr has it forget the attributes of a node, and waits for nobody.
	dropAttr func(nodeid uint64)
	// mapsDirect is whether the kernel can map what is open with FOPEN_DIRECT_IO for
	// shared writing (Linux 6.6).
	mapsDirect bool

	locks   Locks // nil: the kernel's own
	lockers lockUsers

	special table
	open    handles[*file]
	dirs    handles[*dir]

	mu      sync.Mutex
	writers map[meta.Ino]int // open for writing; guarded by mu
	bare    bareness
}

func newFiles(ctx context.Context, cfg Config) *files {
	return &files{
		RawFileSystem: raw.NewDefaultRawFileSystem(),
		ctx:           ctx,
		fs:            cfg.FS,
		root:          cfg.Root,
		mux:           cfg.Special,
		timeout:       cfg.Timeout,
		failed:        cfg.Failed,
		locks:         cfg.Locks,
		fence:         cfg.Fence,
		log:           cfg.Log,
		started:       meta.At(time.Now()),
		writers:       make(map[meta.Ino]int),
	}
}

func (f *files) String() string { return "dos" }

// closeAll ends what the kernel did not release: it does not when the
// connection was cut. Locks are left to the end of the session.
func (f *files) closeAll() {
	for _, h := range f.open.drain() {
		f.release(h)
	}
	for _, d := range f.dirs.drain() {
		d.release()
	}
}

// ino is the inode that the kernel knows as nodeid.
func (f *files) ino(nodeid uint64) meta.Ino {
	if nodeid == raw.FUSE_ROOT_ID {
		return f.root
	}
	return meta.Ino(nodeid)
}

func (f *files) nodeid(ino meta.Ino) uint64 {
	if ino == f.root {
		return raw.FUSE_ROOT_ID
	}
	return uint64(ino)
}

// reserved reports whether name in the directory nodeid belongs to a special
// directory, present or not.
func (f *files) reserved(nodeid uint64, name string) bool {
	return nodeid == raw.FUSE_ROOT_ID && f.mux != nil && procfs.Reserved(name)
}

// refuse is the answer to creating a reserved name, 0 for other names.
func (f *files) refuse(nodeid uint64, name string) raw.Status {
	if !f.reserved(nodeid, name) {
		return raw.OK
	}
	if f.mux.Has(name) {
		return raw.Status(syscall.EEXIST)
	}
	return raw.EBUSY
}

func setID(a meta.Attr) bool { return a.Mode&(meta.SetUID|meta.SetGID) != 0 }

// attrTimeout is how long the kernel may believe a, for all that is not said by
// attr: where other mounts use the tree too, not at all. What the answers to
// LOOKUP, CREATE and SETATTR say it believes even if it was told meanwhile to
// believe nothing (doubt): it cannot be told of an inode that it is about to hear
// of, and of one that it changes itself it takes the last word.
func (f *files) attrTimeout(a meta.Attr) time.Duration {
	if !a.IsFile() || f.timeout == 0 {
		return f.timeout
	}
	if setID(a) {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writers[a.Ino] > 0 {
		return 0
	}
	return f.timeout
}

// shown is a as the kernel is to see it: the root has the special directories too.
func (f *files) shown(a meta.Attr) meta.Attr {
	if a.Ino == f.root && f.mux != nil {
		a.Nlink += uint32(f.mux.Len())
	}
	return a
}

// fillEntry tells the kernel of an inode. The kernel counts how often it was
// told; until it forgets as often, it may ask for the inode by its number.
func (f *files) fillEntry(out *raw.EntryOut, a meta.Attr) {
	f.fs.Hold(a.Ino)
	f.fs.Told(a)
	a = f.shown(a)
	out.NodeId = f.nodeid(a.Ino)
	out.Generation = 1 // inode numbers are not used again
	out.SetEntryTimeout(f.timeout)
	out.SetAttrTimeout(f.attrTimeout(a))
	fillAttr(&out.Attr, a)
}

func (f *files) fillAttrOut(out *raw.AttrOut, a meta.Attr, good time.Duration) {
	a = f.shown(a)
	out.SetTimeout(good)
	fillAttr(&out.Attr, a)
}

func (f *files) Lookup(_ <-chan struct{}, in *raw.InHeader, name string, out *raw.EntryOut) raw.Status {
	if isSpecial(in.NodeId) {
		return f.specialLookup(in.NodeId, name, out)
	}
	if f.reserved(in.NodeId, name) {
		return f.muxLookup(name, out)
	}
	a, err := f.fs.Lookup(f.ctx, f.ino(in.NodeId), name)
	if err == error(meta.NotExist) { // node 0: and it may remember that
		out.SetEntryTimeout(f.timeout)
		return raw.OK
	}
	if err != nil {
		return f.status("lookup", err)
	}
	f.fillEntry(out, a)
	return raw.OK
}

// Forget takes back what fillEntry told, lookups times.
func (f *files) Forget(nodeid, lookups uint64) {
	switch {
	case isSpecial(nodeid):
		f.special.forget(nodeid, lookups)
	case nodeid != raw.FUSE_ROOT_ID:
		f.fs.Forget(f.ino(nodeid), lookups)
	}
}

func (f *files) GetAttr(_ <-chan struct{}, in *raw.GetAttrIn, out *raw.AttrOut) raw.Status {
	if isSpecial(in.NodeId) {
		a, good, err := f.specialAttr(in.NodeId, in.Pid)
		if err != nil {
			return f.status("getattr", err)
		}
		out.SetTimeout(good)
		fillAttr(&out.Attr, a)
		return raw.OK
	}
	a, good, err := f.attr(in.NodeId)
	if err != nil {
		return f.nodeStatus("getattr", err)
	}
	f.fillAttrOut(out, a, good)
	return raw.OK
}

// attr returns what stat tells of a stored node, and for how long the kernel may
// believe it. Pages that do not go with it are dropped before the kernel hears of it.
func (f *files) attr(nodeid uint64) (a meta.Attr, good time.Duration, err error) {
	a, good, err = f.fs.AttrFor(f.ctx, f.ino(nodeid))
	if err != nil {
		return a, 0, err
	}
	if f.fs.Drops(a) {
		f.dropPages(nodeid)
	}
	switch {
	case !f.fs.Shared():
		good = f.attrTimeout(a)
	case setID(a):
		good = 0
	}
	return a, good, nil
}

// Statx is GetAttr with the time of birth.
func (f *files) Statx(_ <-chan struct{}, in *raw.StatxIn, out *raw.StatxOut) raw.Status {
	if isSpecial(in.NodeId) {
		a, good, err := f.specialAttr(in.NodeId, in.Pid)
		if err != nil {
			return f.status("statx", err)
		}
		out.SetTimeout(good)
		fillStatx(&out.Statx, a)
		return raw.OK
	}
	a, good, err := f.attr(in.NodeId)
	if err != nil {
		return f.nodeStatus("statx", err)
	}
	a = f.shown(a)
	out.SetTimeout(good)
	fillStatx(&out.Statx, a)
	return raw.OK
}

func (f *files) SetAttr(cancel <-chan struct{}, in *raw.SetAttrIn, out *raw.AttrOut) raw.Status {
	if isSpecial(in.NodeId) {
		return f.specialSetAttr(cancel, in, out)
	}
	ino := f.ino(in.NodeId)
	var a meta.Attr
	var err error
	if set := setAttr(in, meta.At(time.Now())); set == (meta.SetAttr{}) {
		a, err = f.fs.Attr(f.ctx, ino) // the kernel sends this before a write that takes set-id bits away
	} else {
		a, err = f.fs.SetAttr(f.by(&in.InHeader), ino, set)
	}
	if err != nil {
		return f.nodeStatus("setattr", err)
	}
	f.fs.Told(a) // its pages cannot be dropped here: the kernel holds writes back meanwhile
	f.fillAttrOut(out, a, f.attrTimeout(a))
	return raw.OK
}

func (f *files) StatFs(_ <-chan struct{}, in *raw.InHeader, out *raw.StatfsOut) raw.Status {
	s, err := f.fs.StatFS(f.ctx)
	if err != nil {
		return f.status("statfs", err)
	}
	// As many more files as there is room for at one block each.
	free := uint64(max(s.Free, 0)) / blockSize
	*out = raw.StatfsOut{
		Blocks: uint64(max(s.Total, 0)) / blockSize, Bfree: free, Bavail: free,
		Files: uint64(max(s.Files, 0)) + free, Ffree: free,
		Bsize: blockSize, Frsize: blockSize, NameLen: meta.NameMax,
	}
	return raw.OK
}

// Ioctl knows none. ENOTTY is what programs that try expect.
func (f *files) Ioctl(<-chan struct{}, *raw.IoctlIn, []byte, *raw.IoctlOut, []byte) raw.Status {
	return raw.Status(syscall.ENOTTY)
}
