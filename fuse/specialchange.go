package fuse

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
	"dos/procfs"
)

// specialSetAttr changes a special node. Truncation to nothing is what `>` means,
// and where nothing else is said does nothing.
func (f *files) specialSetAttr(cancel <-chan struct{}, in *raw.SetAttrIn, out *raw.AttrOut) raw.Status {
	if size, ok := in.GetSize(); ok {
		if err := f.specialTruncate(cancel, in, int64(size)); err != nil {
			return f.status("truncate", err)
		}
	}
	if err := f.specialSet(in); err != nil {
		return f.status("setattr", err)
	}
	a, good, err := f.specialAttr(in.NodeId, in.Pid)
	if err != nil {
		return f.status("setattr", err)
	}
	out.SetTimeout(good)
	fillAttr(&out.Attr, a)
	return raw.OK
}

// specialTruncate sets the size of an open file, or of one that it opens for that.
func (f *files) specialTruncate(cancel <-chan struct{}, in *raw.SetAttrIn, size int64) error {
	if fh, ok := in.GetFh(); ok {
		if o, ok := f.open.get(fh); ok && o.special != nil {
			return truncate(waiting{cancel, in.Pid}, o.special.Handle, size)
		}
	}
	n, err := f.node(in.NodeId)
	if err != nil {
		return err
	}
	openable, ok := n.Node.(procfs.File)
	if !ok {
		return meta.Invalid
	}
	if _, ok := n.Node.(procfs.Truncatable); !ok {
		return truncate(waiting{cancel, in.Pid}, nil, size)
	}
	h, err := openable.Open(waiting{cancel, in.Pid}, procfs.Open{Write: true, Caller: caller(&in.InHeader)})
	if err != nil {
		return err
	}
	err = truncate(waiting{cancel, in.Pid}, h, size)
	ctx, done := context.WithTimeout(f.ctx, closeTime)
	defer done()
	if flusher, ok := h.(procfs.Flusher); ok && err == nil {
		err = flusher.Flush(ctx, procfs.Closer{Known: true, Opener: true, Wrote: true})
	}
	if e := h.Close(ctx); err == nil {
		err = e
	}
	return err
}

func truncate(ctx context.Context, h procfs.Handle, size int64) error {
	if t, ok := h.(procfs.Truncater); ok {
		return t.Truncate(ctx, size)
	}
	if size != 0 {
		return meta.Invalid
	}
	return nil
}

// specialSet changes owner, mode or times. Those of fixed files are fixed.
func (f *files) specialSet(in *raw.SetAttrIn) error {
	const times = raw.FATTR_ATIME | raw.FATTR_MTIME
	_, sized := in.GetSize() // the times then change by themselves
	change := procfs.Change{Touch: in.Valid&times != 0 && !sized}
	if v, ok := in.GetMode(); ok {
		v &^= meta.TypeMask
		change.Mode = &v
	}
	if v, ok := in.GetUID(); ok {
		change.UID = &v
	}
	if v, ok := in.GetGID(); ok {
		change.GID = &v
	}
	if change == (procfs.Change{}) {
		return nil
	}
	n, err := f.node(in.NodeId)
	if err != nil {
		return err
	}
	s, ok := n.Node.(procfs.Setter)
	if !ok {
		return meta.Fixed
	}
	return f.settled(n, func() error { return s.Set(f.by(&in.InHeader), change, caller(&in.InHeader)) })
}

// settled has change change a node. If it does not exist yet, it is made of what was
// written so far.
func (f *files) settled(n *specialNode, change func() error) error {
	err := change()
	if !errors.Is(err, meta.NotExist) {
		return err
	}
	for _, o := range f.special.handles(n) {
		if h, ok := o.Handle.(procfs.Settler); ok && o.writable {
			if err := h.Settle(f.ctx); err != nil {
				return err
			}
			return change()
		}
	}
	return err
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
	return c.Create(f.by(in), name, mode, caller(in))
}

func (f *files) specialCreateOpen(cancel <-chan struct{}, in *raw.CreateIn, name string, out *raw.CreateOut) raw.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status("create", err)
	}
	mode := meta.TypeFile | in.Mode&^meta.TypeMask
	if m, ok := n.Node.(procfs.Maker); ok {
		how := opening(&in.InHeader, in.Flags)
		how.Create, how.Exclusive = true, in.Flags&syscall.O_EXCL != 0
		made, h, err := m.Make(f.by(&in.InHeader), name, mode, how)
		if err != nil {
			return f.status("create", err)
		}
		s := f.special.add(in.NodeId, name, made)
		f.openHandle(s, in.Pid, h, in.Flags, &out.OpenOut)
		info, err := f.specialInfo(s)
		if err != nil {
			f.special.forget(s.id, 1)
			if o, ok := f.open.take(out.Fh); ok {
				f.specialRelease(o.special)
			}
			return f.status("create", err)
		}
		f.fillSpecial(s, info, &out.EntryOut)
		return raw.OK
	}
	made, err := f.specialCreate(&in.InHeader, name, mode)
	if err != nil {
		return f.status("create", err)
	}
	if s := f.enter("create", in.NodeId, name, made, &out.EntryOut); s != raw.OK {
		return s
	}
	n, err = f.node(out.NodeId)
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
	return r.Remove(f.by(in), name, caller(in))
}

// specialRename renames where one of the two directories at least is special. What
// may be moved at all is copied by mv(1) where it cannot be renamed.
func (f *files) specialRename(in *raw.RenameIn, name, newName string) error {
	switch {
	case !isSpecial(in.NodeId):
		to, err := f.node(in.Newdir)
		if err != nil {
			return err
		}
		if _, ok := to.Node.(procfs.Maker); !ok {
			return meta.Fixed
		}
		return syscall.EXDEV
	case in.Flags&^uint32(meta.RenameNoReplace) != 0:
		return meta.Fixed
	}
	from, err := f.node(in.NodeId)
	if err != nil {
		return err
	}
	r, ok := from.Node.(procfs.Renamer)
	if !ok || !r.Movable(name) {
		return fixed("renaming", name)
	}
	if !isSpecial(in.Newdir) {
		return syscall.EXDEV
	}
	to, err := f.node(in.Newdir)
	if err != nil {
		return err
	}
	return r.Rename(f.by(&in.InHeader), name, to.Node, newName, in.Flags&uint32(meta.RenameNoReplace) != 0, caller(&in.InHeader))
}
