package fuse

import (
	"fmt"
	"syscall"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
)

// create makes a name in the stored tree or in a special directory.
func (f *files) create(op string, in *raw.InHeader, name string, node meta.Node, out *raw.EntryOut) raw.Status {
	if s := f.refuse(in.NodeId, name); s != raw.OK {
		return s
	}
	if isSpecial(in.NodeId) {
		n, err := f.specialCreate(in, name, node.Mode)
		if err != nil {
			return f.status(op, err)
		}
		return f.enter(op, in.NodeId, name, n, out)
	}
	node.UID, node.GID = in.Uid, in.Gid
	a, err := f.fs.Create(f.by(in), f.ino(in.NodeId), name, node)
	if err != nil {
		return f.status(op, err)
	}
	f.fillEntry(out, a)
	return raw.OK
}

func (f *files) Mknod(_ <-chan struct{}, in *raw.MknodIn, name string, out *raw.EntryOut) raw.Status {
	mode := in.Mode
	if mode&meta.TypeMask == 0 {
		mode |= meta.TypeFile
	}
	return f.create("mknod", &in.InHeader, name, meta.Node{Mode: mode, Rdev: in.Rdev}, out)
}

func (f *files) Mkdir(_ <-chan struct{}, in *raw.MkdirIn, name string, out *raw.EntryOut) raw.Status {
	return f.create("mkdir", &in.InHeader, name, meta.Node{Mode: meta.TypeDir | in.Mode&^meta.TypeMask}, out)
}

func (f *files) Symlink(_ <-chan struct{}, in *raw.InHeader, target, name string, out *raw.EntryOut) raw.Status {
	if isSpecial(in.NodeId) {
		return raw.EPERM
	}
	return f.create("symlink", in, name, meta.Node{Mode: meta.TypeSymlink | 0o777, Target: target}, out)
}

func (f *files) Readlink(_ <-chan struct{}, in *raw.InHeader) ([]byte, raw.Status) {
	var target string
	var err error
	if isSpecial(in.NodeId) {
		target, err = f.specialTarget(in.NodeId)
	} else {
		target, err = f.fs.Readlink(f.ctx, f.ino(in.NodeId))
	}
	if err != nil {
		return nil, f.nodeStatus("readlink", err)
	}
	return []byte(target), raw.OK
}

func (f *files) Link(_ <-chan struct{}, in *raw.LinkIn, name string, out *raw.EntryOut) raw.Status {
	if isSpecial(in.NodeId) || isSpecial(in.Oldnodeid) {
		return raw.EPERM
	}
	if s := f.refuse(in.NodeId, name); s != raw.OK {
		return s
	}
	a, err := f.fs.Link(f.by(&in.InHeader), f.ino(in.Oldnodeid), f.ino(in.NodeId), name)
	if err != nil {
		return f.status("link", err)
	}
	f.fillEntry(out, a)
	return raw.OK
}

func (f *files) Unlink(_ <-chan struct{}, in *raw.InHeader, name string) raw.Status {
	return f.remove("unlink", in, name, false)
}

func (f *files) Rmdir(_ <-chan struct{}, in *raw.InHeader, name string) raw.Status {
	return f.remove("rmdir", in, name, true)
}

func (f *files) remove(op string, in *raw.InHeader, name string, isDir bool) raw.Status {
	switch {
	case isSpecial(in.NodeId):
		return f.status(op, f.specialRemove(in, name))
	case f.reserved(in.NodeId, name):
		return raw.EBUSY // as for a mount point
	case isDir:
		return f.status(op, f.fs.Rmdir(f.by(in), f.ino(in.NodeId), name))
	}
	return f.status(op, f.fs.Unlink(f.by(in), f.ino(in.NodeId), name))
}

func (f *files) Rename(_ <-chan struct{}, in *raw.RenameIn, name, newName string) raw.Status {
	flags := meta.RenameFlags(in.Flags)
	switch {
	case isSpecial(in.NodeId) || isSpecial(in.Newdir):
		return f.status("rename", f.specialRename(in, name, newName))
	case f.reserved(in.NodeId, name) || f.reserved(in.Newdir, newName):
		return raw.EBUSY
	case flags&^(meta.RenameNoReplace|meta.RenameExchange) != 0:
		return raw.Status(syscall.EINVAL)
	}
	return f.status("rename", f.fs.Rename(f.by(&in.InHeader), f.ino(in.NodeId), name, f.ino(in.Newdir), newName, flags))
}

// nodeError says which special node a request was about.
func nodeError(id uint64) error { return fmt.Errorf("node %#x: %w", id, meta.Conflict) }
