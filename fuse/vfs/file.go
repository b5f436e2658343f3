package vfs

import (
	"context"
	"syscall"
	"time"

	"dos/meta"
)

// A File is one open of a regular file.
type File struct {
	fs     *FS
	n      *inode
	writes bool
	synced bool   // each write waits until it is stored
	cached bool   // see Cached
	told   uint64 // guarded by n.mu: inode.lost as of the last time the owner was told
}

// WriteFlags say how one write is meant.
type WriteFlags uint8

const (
	// Append writes at the end of the file, wherever that is by then. Writes
	// of mapped pages never append, though their handle may be O_APPEND.
	Append WriteFlags = 1 << iota
	// KillPriv clears the set-id bits, as a write by an ordinary user does.
	KillPriv
)

// Open opens a regular file. flags are those of open(2); of them O_ACCMODE,
// O_TRUNC, O_SYNC and O_DSYNC mean something here. The caller has checked
// permissions.
func (fs *FS) Open(ctx context.Context, ino meta.Ino, flags int) (*File, error) {
	n := fs.get(ino)
	f, err := fs.open(ctx, n, flags)
	if err != nil {
		fs.put(n)
		return nil, err
	}
	if flags&syscall.O_TRUNC != 0 && f.writes {
		zero := int64(0)
		if _, err := fs.setAttr(ctx, n, meta.SetAttr{Size: &zero, KillPriv: true}); err != nil {
			f.Release()
			return nil, err
		}
	}
	return f, nil
}

func (fs *FS) open(ctx context.Context, n *inode, flags int) (*File, error) {
	if err := n.life.RLock(ctx); err != nil {
		return nil, err
	}
	defer n.life.RUnlock()
	a, err := fs.look(ctx, n)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.gone, fs.Shared() && a.Nlink == 0 && !n.kept: // others are done with it
		return nil, meta.NotExist
	case a.IsDir():
		return nil, meta.IsDir
	case !a.IsFile():
		return nil, meta.Unsupported
	}
	n.opens++
	writes := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if writes {
		n.writers++
	}
	f := &File{
		fs: fs, n: n,
		writes: writes,
		synced: fs.cfg.Sync || flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0,
		told:   n.lost,
		cached: !fs.Shared() || !n.stale(a.Data),
	}
	if n.lostNew { // this handle is the first that can be told
		f.told--
	}
	return f, nil
}

// stale reports whether the kernel may have pages of another version of the data
// than that, and notes that it will have those of that. mu is held.
func (n *inode) stale(version uint64) bool {
	if n.paged && n.pages >= version {
		return false
	}
	n.paged, n.pages = true, version
	return true
}

// Told notes what attributes the kernel is about to be told.
func (fs *FS) Told(a meta.Attr) { fs.tell(a, false) }

// Drops is Told, and reports whether the kernel has to be made to drop what it has
// cached of the file since that was opened. It drops that itself when size or mtime
// are not what it was told before. Only when they are, and the data is of another
// version all the same, it has to be made to; what it is told while that is done it
// does not believe, which then does no harm.
func (fs *FS) Drops(a meta.Attr) bool { return fs.tell(a, true) }

func (fs *FS) tell(a meta.Attr, drops bool) bool {
	if !fs.Shared() || !a.IsFile() {
		return false
	}
	n := fs.peek(a.Ino)
	if n == nil {
		return false
	}
	defer fs.put(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	same := n.toldSize == a.Size && n.toldMtime == a.Mtime
	n.toldSize, n.toldMtime = a.Size, a.Mtime
	return drops && n.opens > 0 && n.stale(a.Data) && same
}

// Cached reports whether what the kernel has cached of the file from earlier
// opens is still right.
func (f *File) Cached() bool { return f.cached }

// Ino returns the file's inode number.
func (f *File) Ino() meta.Ino { return f.n.ino }

// ReadAt fills p from off. It returns fewer bytes only at the end of the file,
// and then no error.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return f.fs.read(ctx, f.n, p, off)
}

// WriteAt takes p over. It returns fewer bytes than len(p) only with an error.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, how WriteFlags) (int, error) {
	fs, n := f.fs, f.n
	switch {
	case !f.writes:
		return 0, meta.Permission
	case off < 0:
		return 0, meta.Invalid
	case len(p) == 0:
		return 0, nil
	}
	var done int
	var err error
	if how&Append != 0 {
		if err := n.op.Lock(ctx); err != nil {
			return 0, err
		}
		if err = fs.own(ctx, n); err == nil {
			n.mu.Lock()
			off = n.size()
			n.mu.Unlock()
			done, err = fs.buffer(ctx, n, p, off, how)
		}
		n.op.Unlock()
	} else {
		if err := n.op.RLock(ctx); err != nil {
			return 0, err
		}
		if err = fs.own(ctx, n); err == nil {
			done, err = fs.buffer(ctx, n, p, off, how)
		}
		n.op.RUnlock()
	}
	if err == nil && (f.synced || n.fenced()) {
		if err := f.report(fs.sync(ctx, n, true)); err != nil {
			return 0, err
		}
	}
	if fs.Shared() && done > 0 {
		n.mu.Lock()
		contended := time.Now().Before(n.contended)
		n.mu.Unlock()
		if contended {
			if err := f.report(fs.handBack(ctx, n, false)); err != nil {
				return 0, err
			}
		}
	}
	return done, err
}

// fenced reports whether each write to it is stored before it returns, because a
// fence may forbid it.
func (n *inode) fenced() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.attr.Fenced
}

// buffer makes p dirty. The caller holds op.
func (fs *FS) buffer(ctx context.Context, n *inode, p []byte, off int64, how WriteFlags) (int, error) {
	if off > meta.SizeMax-int64(len(p)) {
		return 0, meta.TooLarge
	}
	if err := fs.checkRoom(ctx, int64(len(p))); err != nil {
		fs.cfg.Log.Warn("vfs: writing is refused: the stores have no room", "inode", uint64(n.ino), "bytes", len(p))
		return 0, err
	}
	done := 0
	var freed <-chan struct{}
	var until time.Time // when the wait for memory is over; starts again with each byte
	for done < len(p) {
		at := off + int64(done)
		part := p[done:min(len(p), done+int(span-at%span))]
		took, err := fs.put1(n, part, at, how)
		done += took
		if took > 0 || until.IsZero() {
			until = time.Now().Add(fs.cfg.Wait)
		}
		switch {
		case err == errUnowned: // or given back, if it was idle for long
			if err := fs.own(ctx, n); err != nil {
				return done, err
			}
		case err != nil:
			return done, err
		case took == len(part):
		case freed == nil: // listen first, then look again
			freed = fs.mem.room()
		default:
			if err := fs.waitMemory(ctx, n, freed, until); err != nil {
				return done, err
			}
			freed = nil
		}
	}
	return done, nil
}

// put1 makes bytes of one span dirty, as many as there is memory for.
func (fs *FS) put1(n *inode, p []byte, off int64, how WriteFlags) (int, error) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return 0, meta.NotExist
	}
	if fs.Shared() && !n.held {
		return 0, errUnowned
	}
	if off != n.next {
		n.run = 0
	}
	took := n.active.write(p, off, now, n.run >= growMax)
	if took == 0 {
		return 0, nil
	}
	end := off + int64(took)
	n.run += int64(took)
	n.next = end
	n.dirtyEnd = max(n.dirtyEnd, end)
	n.wtime = max(meta.At(now), n.wtime)
	if how&KillPriv != 0 {
		n.kill = true
	}
	fs.setDirty(n, true)
	if wi := off / span; end == (wi+1)*span && n.active.windows[wi].bytes == span {
		fs.sendSpan(n, wi)
	}
	return took, nil
}

// waitMemory asks for memory and waits until dirty data of some file has been
// stored.
func (fs *FS) waitMemory(ctx context.Context, n *inode, freed <-chan struct{}, until time.Time) error {
	poke(fs.press)
	limit := time.NewTimer(time.Until(until))
	defer limit.Stop()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-fs.done:
		return meta.Unavailable
	case <-limit.C:
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.err != nil {
			return n.err
		}
		return meta.Unavailable
	}
}

// Flush is called at each close of a descriptor: it stores what the file has.
// What there is no room for, it drops.
func (f *File) Flush(ctx context.Context) error {
	if !f.writes {
		return nil
	}
	err := f.fs.flush(ctx, f.n)
	if full(err) {
		f.n.mu.Lock()
		if len(f.n.queue) == 0 && !f.n.frozen {
			f.fs.lose(f.n, err)
		}
		f.n.mu.Unlock()
	}
	return f.report(err)
}

// flush stores what the file has. At what looks like the last close the lease is
// given back with that.
func (fs *FS) flush(ctx context.Context, n *inode) error {
	n.mu.Lock()
	last := n.held && n.opens == 1
	n.mu.Unlock()
	if !last {
		return fs.sync(ctx, n, true)
	}
	if err := n.op.Lock(ctx); err != nil {
		return err
	}
	defer n.op.Unlock()
	return fs.surrender(ctx, n)
}

// Fsync returns when all that was written to the file before is stored. Size
// and times go with the data, so dataOnly makes no difference.
func (f *File) Fsync(ctx context.Context, dataOnly bool) error {
	return f.report(f.fs.sync(ctx, f.n, true))
}

// report adds to the result of storing what the handle has not been told yet.
func (f *File) report(err error) error {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.told != f.n.lost {
		f.told, f.n.lostNew = f.n.lost, false
		if err == nil {
			err = f.n.lostErr
		}
	}
	return err
}

// Release ends the handle. It does not store anything: Flush came before.
func (f *File) Release() {
	if f.writes {
		f.n.mu.Lock()
		f.n.writers--
		f.n.mu.Unlock()
	}
	f.fs.release(f.n)
}

// release ends an open of a file or a directory.
func (fs *FS) release(n *inode) {
	n.mu.Lock()
	n.opens--
	n.mu.Unlock()
	fs.unused(n)
	fs.put(n)
}
