package fuse

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
	"dos/procfs"
)

// A specialOpen is one open of a special file.
type specialOpen struct {
	procfs.Handle
	node *specialNode
	pid  uint32
	size int64 // what there is to read, if the handle knows; else -1
}

// specialNode finds the node of a request.
func (f *files) node(id uint64) (*specialNode, error) {
	n, ok := f.special.get(id)
	if !ok {
		return nil, nodeError(id)
	}
	return n, nil
}

// muxLookup answers for a reserved name in the root.
func (f *files) muxLookup(name string, out *raw.EntryOut) raw.Status {
	n, err := f.mux.Lookup(f.ctx, name)
	if err != nil {
		return f.status("lookup", err)
	}
	return f.enter("lookup", raw.FUSE_ROOT_ID, name, n, out)
}

func (f *files) specialLookup(parent uint64, name string, out *raw.EntryOut) raw.Status {
	n, err := f.node(parent)
	if err != nil {
		return f.status("lookup", err)
	}
	d, ok := n.Node.(procfs.Dir)
	if !ok {
		return raw.ENOTDIR
	}
	found, err := d.Lookup(f.ctx, name)
	if err != nil {
		return f.status("lookup", err)
	}
	return f.enter("lookup", parent, name, found, out)
}

// enter tells the kernel of a special node that was found as name in parent.
// It must ask again each time: timeouts are zero.
func (f *files) enter(op string, parent uint64, name string, n procfs.Node, out *raw.EntryOut) raw.Status {
	info, err := n.Stat(f.ctx)
	if err != nil {
		return f.status(op, err)
	}
	s := f.special.add(parent, name, n)
	out.NodeId = s.id
	out.Generation = 1
	fillAttr(&out.Attr, infoAttr(s.id, info, f.started))
	return raw.OK
}

// specialAttr is what stat tells of a special node. If pid has it open, or
// else anybody, the size is what that handle has to read: a program that asks
// for the size of what it opened must be able to rely on it.
func (f *files) specialAttr(id uint64, pid uint32) (meta.Attr, error) {
	n, err := f.node(id)
	if err != nil {
		return meta.Attr{}, err
	}
	info, err := n.Stat(f.ctx)
	if err != nil {
		return meta.Attr{}, err
	}
	if size, ok := f.special.size(n, pid); ok {
		info.Size = size
	}
	return infoAttr(id, info, f.started), nil
}

// specialSetAttr accepts truncation to nothing, which is what `>` means and
// does nothing here. Owner, mode and times of fixed files are fixed.
func (f *files) specialSetAttr(in *raw.SetAttrIn, out *raw.AttrOut) raw.Status {
	size, sized := in.GetSize()
	const changes = raw.FATTR_MODE | raw.FATTR_UID | raw.FATTR_GID
	const times = raw.FATTR_ATIME | raw.FATTR_MTIME
	switch {
	case sized && size != 0:
		return raw.EINVAL
	case in.Valid&changes != 0, in.Valid&times != 0 && !sized:
		return raw.EPERM
	}
	a, err := f.specialAttr(in.NodeId, in.Pid)
	if err != nil {
		return f.status("setattr", err)
	}
	fillAttr(&out.Attr, a)
	return raw.OK
}

func caller(in *raw.InHeader) procfs.Caller {
	return procfs.Caller{UID: in.Uid, GID: in.Gid, PID: in.Pid}
}

func (f *files) specialOpen(cancel <-chan struct{}, in *raw.InHeader, flags uint32, out *raw.OpenOut) raw.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status("open", err)
	}
	return f.openNode(cancel, in, n, flags, out)
}

func (f *files) openNode(cancel <-chan struct{}, in *raw.InHeader, n *specialNode, flags uint32, out *raw.OpenOut) raw.Status {
	openable, ok := n.Node.(procfs.File)
	if !ok {
		return raw.Status(syscall.ENXIO)
	}
	mode := flags & syscall.O_ACCMODE
	h, err := openable.Open(waiting{cancel}, procfs.Open{
		Read:     mode != syscall.O_WRONLY,
		Write:    mode != syscall.O_RDONLY,
		Nonblock: flags&syscall.O_NONBLOCK != 0,
		Caller:   caller(in),
	})
	if err != nil {
		return f.status("open", err)
	}
	o := &specialOpen{Handle: h, node: n, pid: in.Pid, size: -1}
	if sizer, ok := h.(procfs.Sizer); ok {
		o.size = sizer.Size()
	}
	out.OpenFlags = raw.FOPEN_DIRECT_IO
	if _, ok := h.(procfs.Streamer); ok {
		// Otherwise two readers of one open file lock each other out beyond the
		// reach of kill -9.
		out.OpenFlags |= raw.FOPEN_STREAM | raw.FOPEN_NONSEEKABLE
	}
	f.special.opened(n, o)
	out.Fh = f.open.add(&file{special: o})
	return raw.OK
}

// specialRelease closes a handle. The program's close(2) returned before, so
// an error is for the log.
func (f *files) specialRelease(o *specialOpen) {
	f.special.closed(o.node, o)
	ctx, cancel := context.WithTimeout(f.ctx, closeTime)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		f.status("close", err)
	}
}

// closeTime bounds how long closing a special file may take, so that the end
// of the mount is not held up.
const closeTime = 30 * time.Second

// specialList lists what readdir shows of the special directory id, or of the
// special directories in the root.
func (f *files) specialList(id uint64) ([]raw.DirEntry, error) {
	var d procfs.Dir = f.mux
	list := []raw.DirEntry{}
	if id != raw.FUSE_ROOT_ID {
		n, err := f.node(id)
		if err != nil {
			return nil, err
		}
		var ok bool
		if d, ok = n.Node.(procfs.Dir); !ok {
			return nil, meta.NotDir
		}
		list = append(list,
			raw.DirEntry{Name: ".", Ino: id, Mode: meta.TypeDir},
			raw.DirEntry{Name: "..", Ino: n.parent, Mode: meta.TypeDir})
	}
	for info, err := range d.Entries(f.ctx) {
		if err != nil {
			return nil, err
		}
		list = append(list, raw.DirEntry{Name: info.Name, Ino: f.special.number(id, info.Name), Mode: info.Mode})
	}
	return list, nil
}

// fixed is the answer to changing a structure that is fixed, with the reason.
func fixed(op, name string) error {
	return fmt.Errorf("%s %q: this directory is not for files of your own: %w", op, name, meta.Fixed)
}

func (f *files) specialCreate(in *raw.InHeader, name string, mode uint32) (procfs.Node, error) {
	n, err := f.node(in.NodeId)
	if err != nil {
		return nil, err
	}
	c, ok := n.Node.(procfs.Creator)
	if !ok {
		return nil, fixed("creating", name)
	}
	return c.Create(f.ctx, name, mode, caller(in))
}

func (f *files) specialCreateOpen(cancel <-chan struct{}, in *raw.CreateIn, name string, out *raw.CreateOut) raw.Status {
	made, err := f.specialCreate(&in.InHeader, name, meta.TypeFile|in.Mode&^meta.TypeMask)
	if err != nil {
		return f.status("create", err)
	}
	if s := f.enter("create", in.NodeId, name, made, &out.EntryOut); s != raw.OK {
		return s
	}
	n, err := f.node(out.NodeId)
	s := f.status("create", err)
	if s == raw.OK {
		s = f.openNode(cancel, &in.InHeader, n, in.Flags, &out.OpenOut)
	}
	if s != raw.OK {
		f.special.forget(out.NodeId, 1) // the kernel does not know of it
	}
	return s
}

func (f *files) specialRemove(in *raw.InHeader, name string) error {
	n, err := f.node(in.NodeId)
	if err != nil {
		return err
	}
	r, ok := n.Node.(procfs.Remover)
	if !ok {
		return fixed("removing", name)
	}
	return r.Remove(f.ctx, name, caller(in))
}

func (f *files) specialTarget(id uint64) (string, error) {
	n, err := f.node(id)
	if err != nil {
		return "", err
	}
	l, ok := n.Node.(procfs.Link)
	if !ok {
		return "", meta.Invalid
	}
	return l.Target(f.ctx)
}

// opened and closed note which handles of a node are open.
func (t *table) opened(n *specialNode, o *specialOpen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.open = append(n.open, o)
}

func (t *table) closed(n *specialNode, o *specialOpen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.open = slices.DeleteFunc(n.open, func(each *specialOpen) bool { return each == o })
}

// size returns what the youngest handle of pid has to read, or else the
// youngest of anybody. (fstat does not say which handle it means.)
func (t *table) size(n *specialNode, pid uint32) (size int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range slices.Backward(n.open) {
		switch {
		case o.size < 0:
		case o.pid == pid:
			return o.size, true
		case !ok:
			size, ok = o.size, true
		}
	}
	return size, ok
}
