package fuse

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	raw "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"dos/fuse/vfs"
	"dos/meta"
	"dos/procfs"
)

// A file is one open of a stored or of a special file: one of the two is set.
type file struct {
	stored   *vfs.File
	writable bool
	// unflushed says that something was written since the last FLUSH. Pages of a
	// map that outlives its descriptor are written after it.
	unflushed atomic.Bool

	special *specialOpen
}

func (f *files) Open(cancel <-chan struct{}, in *raw.OpenIn, out *raw.OpenOut) raw.Status {
	if isSpecial(in.NodeId) {
		return f.specialOpen(cancel, &in.InHeader, in.Flags, out)
	}
	ino, flags := f.ino(in.NodeId), in.Flags
	if in.Mode&raw.OPEN_KILL_SUIDGID != 0 && flags&syscall.O_TRUNC != 0 {
		// The truncation is by someone who may not keep the set-id bits: it must
		// clear them, which O_TRUNC has no way to say.
		flags &^= syscall.O_TRUNC
		size := int64(0)
		if _, err := f.fs.SetAttr(f.by(&in.InHeader), ino, meta.SetAttr{Size: &size, KillPriv: true}); err != nil {
			return f.nodeStatus("open", err)
		}
	}
	stored, err := f.fs.Open(f.by(&in.InHeader), ino, int(flags))
	if err != nil {
		return f.nodeStatus("open", err)
	}
	f.opened(stored, in.Flags, out)
	return raw.OK
}

// opened gives the kernel a handle for stored.
func (f *files) opened(stored *vfs.File, flags uint32, out *raw.OpenOut) {
	h := &file{stored: stored, writable: flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	switch {
	case f.fs.Shared() && h.writable && (f.mapsDirect || flags&syscall.O_APPEND != 0):
		// A write must not show in pages of this machine before the others can see it.
		// And one write(2) must be one WRITE, or what others append comes in between:
		// the kernel cuts writes at pages that it does not have.
		out.OpenFlags = raw.FOPEN_DIRECT_IO
	case stored.Cached():
		out.OpenFlags = raw.FOPEN_KEEP_CACHE
	}
	if h.writable {
		f.mu.Lock()
		f.writers[stored.Ino()]++
		f.mu.Unlock()
	} else if f.locks == nil {
		out.OpenFlags |= raw.FOPEN_NOFLUSH // there is nothing to flush, and no lock to give up
	}
	out.Fh = f.open.add(h)
}

func (f *files) Create(cancel <-chan struct{}, in *raw.CreateIn, name string, out *raw.CreateOut) raw.Status {
	if s := f.refuse(in.NodeId, name); s != raw.OK {
		return s
	}
	if isSpecial(in.NodeId) {
		return f.specialCreateOpen(cancel, in, name, out)
	}
	node := meta.Node{Mode: meta.TypeFile | in.Mode&^meta.TypeMask, UID: in.Uid, GID: in.Gid}
	a, stored, err := f.fs.CreateOpen(f.by(&in.InHeader), f.ino(in.NodeId), name, node, int(in.Flags))
	if err != nil {
		return f.status("create", err)
	}
	f.opened(stored, in.Flags, &out.OpenOut)
	f.fillEntry(&out.EntryOut, a)
	return raw.OK
}

// Read fills go-fuse's buffer, which goes to the kernel as it is.
func (f *files) Read(cancel <-chan struct{}, in *raw.ReadIn, buf []byte) (raw.ReadResult, raw.Status) {
	h, ok := f.open.get(in.Fh)
	if !ok {
		return nil, raw.EBADF
	}
	var n int
	var err error
	if h.special != nil {
		n, err = h.special.ReadAt(waiting{cancel, in.Pid}, buf, int64(in.Offset))
		if errors.Is(err, io.EOF) || n > 0 { // what was read is not lost; the next read gets the error
			err = nil
		}
	} else {
		n, err = h.stored.ReadAt(f.ctx, buf, int64(in.Offset))
	}
	if err != nil {
		return nil, f.status("read", err)
	}
	return raw.ReadResultData(buf[:n]), raw.OK
}

func (f *files) Write(cancel <-chan struct{}, in *raw.WriteIn, data []byte) (uint32, raw.Status) {
	h, ok := f.open.get(in.Fh)
	if !ok {
		return 0, raw.EBADF
	}
	var n int
	var err error
	switch {
	case h.special != nil:
		h.special.use.wrote(in.Pid)
		n, err = h.special.WriteAt(f.writing(h.special.node.Node, cancel, &in.InHeader), data, int64(in.Offset))
	case f.ending.Load():
		return 0, raw.Status(syscall.ENOTCONN)
	default:
		h.unflushed.Store(true)
		n, err = h.stored.WriteAt(f.by(&in.InHeader), data, int64(in.Offset), writeFlags(in))
	}
	if n > 0 { // a short write: the retry of the rest gets the error
		return uint32(n), raw.OK
	}
	return 0, f.status("write", err)
}

func writeFlags(in *raw.WriteIn) vfs.WriteFlags {
	if in.WriteFlags&raw.WRITE_CACHE != 0 {
		return 0 // pages of a map go where they are, whatever their handle says
	}
	var how vfs.WriteFlags
	if in.Flags&syscall.O_APPEND != 0 {
		how |= vfs.Append
	}
	if in.WriteFlags&raw.WRITE_KILL_SUIDGID != 0 {
		how |= vfs.KillPriv
	}
	return how
}

// Flush comes at each close of a descriptor, of duplicates too: the last
// chance to tell a program that what it wrote cannot be stored.
func (f *files) Flush(_ <-chan struct{}, in *raw.FlushIn) raw.Status {
	h, ok := f.open.get(in.Fh)
	if !ok {
		return raw.EBADF
	}
	if h.special != nil {
		return f.specialFlush(h.special, in)
	}
	s := raw.OK
	if h.writable {
		s = f.status("close", h.flush(f))
	}
	if locks := f.flushLocks(h.stored.Ino(), in.LockOwner); s == raw.OK {
		s = locks
	}
	return s
}

func (h *file) flush(f *files) error {
	h.unflushed.Store(false)
	return h.stored.Flush(f.ctx)
}

func (f *files) Fsync(_ <-chan struct{}, in *raw.FsyncIn) raw.Status {
	h, ok := f.open.get(in.Fh)
	if !ok {
		return raw.EBADF
	}
	if h.special != nil {
		if syncer, ok := h.special.Handle.(procfs.Syncer); ok {
			return f.status("fsync", syncer.Sync(f.ctx))
		}
		return raw.OK
	}
	const dataOnly = 1 << 0
	return f.status("fsync", h.stored.Fsync(f.ctx, in.FsyncFlags&dataOnly != 0))
}

// Release is asynchronous: close(2) returned before, so its errors are for the log.
func (f *files) Release(_ <-chan struct{}, in *raw.ReleaseIn) {
	if h, ok := f.open.take(in.Fh); ok {
		f.release(h)
		f.releaseLocks(in.Fh)
	}
}

func (f *files) release(h *file) {
	if h.special != nil {
		f.specialRelease(h.special)
		return
	}
	if h.unflushed.Load() {
		if err := h.flush(f); err != nil {
			f.log.Error("fuse: storing the pages of a map failed after its file was closed; it is tried again", "ino", uint64(h.stored.Ino()), "err", err)
		}
	}
	ino := h.stored.Ino()
	h.stored.Release()
	if !h.writable {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writers[ino]--; f.writers[ino] <= 0 {
		delete(f.writers, ino)
	}
}

func (f *files) Fallocate(_ <-chan struct{}, in *raw.FallocateIn) raw.Status {
	h, ok := f.open.get(in.Fh)
	switch {
	case !ok:
		return raw.EBADF
	case h.stored == nil:
		return raw.Status(syscall.ENODEV)
	}
	h.unflushed.Store(true)
	return f.status("fallocate", h.stored.Allocate(f.by(&in.InHeader), int64(in.Offset), int64(in.Length), in.Mode))
}

// Lseek finds data and holes; other ways of seeking the kernel does itself.
func (f *files) Lseek(_ <-chan struct{}, in *raw.LseekIn, out *raw.LseekOut) raw.Status {
	h, ok := f.open.get(in.Fh)
	switch {
	case !ok:
		return raw.EBADF
	case in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE:
		return raw.EINVAL
	case h.stored == nil:
		return raw.Status(syscall.EINVAL)
	}
	off, err := h.stored.Seek(f.ctx, int64(in.Offset), in.Whence)
	if errors.Is(err, vfs.ErrNoData) {
		return raw.Status(syscall.ENXIO)
	}
	if err != nil {
		return f.status("lseek", err)
	}
	out.Offset = uint64(off)
	return raw.OK
}
