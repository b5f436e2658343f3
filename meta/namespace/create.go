package namespace

import (
	"errors"
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/lease"
	"dos/meta/state"
)

// modeMask is what of a mode is stored.
const modeMask = meta.TypeMask | 0o7777

func initialize(tx *state.Tx, req Init) (meta.Attr, error) {
	if in, ok := load[inode](tx, inodeKey(meta.Root)); ok {
		return in.Attr, nil
	}
	in := newInode(tx, meta.Root, meta.Node{Mode: meta.TypeDir | req.Mode&^meta.TypeMask, UID: req.UID, GID: req.GID})
	in.Parent = meta.Root
	put(tx, in)
	save(tx, totalsKey, totals{Next: meta.Root + 1, Inodes: 1})
	return in.Attr, nil
}

func newInode(tx *state.Tx, ino meta.Ino, node meta.Node) *inode {
	now := meta.At(tx.Now)
	in := &inode{Attr: meta.Attr{
		Ino: ino, Mode: node.Mode & modeMask, Nlink: 1, UID: node.UID, GID: node.GID,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	}}
	switch in.Attr.Type() {
	case meta.TypeDir:
		in.Attr.Nlink = 2
	case meta.TypeSymlink:
		in.Attr.Mode = meta.TypeSymlink | 0o777
		in.Target = node.Target
		in.Attr.Size = int64(len(node.Target))
	case meta.TypeChar, meta.TypeBlock:
		in.Attr.Rdev = node.Rdev
	}
	return in
}

func create(tx *state.Tx, req Create) (meta.Attr, error) {
	dir, err := parentOf(tx, req.Parent, req.Name)
	if err != nil && !(hides(req) && errors.Is(err, meta.Busy)) {
		return meta.Attr{}, err
	}
	if err := checkNode(req.Node); err != nil {
		return meta.Attr{}, err
	}
	if req.Node.Lease && (tx.Session == 0 || req.Node.Mode&meta.TypeMask != meta.TypeFile) {
		return meta.Attr{}, fmt.Errorf("a lease of mode %o for session %d: %w", req.Node.Mode, tx.Session, meta.Invalid)
	}
	if has(tx, dentryKey(req.Parent, req.Name)) {
		return meta.Attr{}, meta.Exist
	}
	var ino meta.Ino
	total(tx, func(t *totals) {
		ino = t.Next
		t.Next++
		t.Inodes++
	})
	in := newInode(tx, ino, req.Node)
	if dir.Attr.Mode&meta.SetGID != 0 { // as in System V: the group follows the directory
		in.Attr.GID = dir.Attr.GID
		if in.Attr.IsDir() {
			in.Attr.Mode |= meta.SetGID
		}
	}
	if err := enter(tx, dir, req.Name, in); err != nil {
		return meta.Attr{}, err
	}
	put(tx, dir)
	put(tx, in)
	if req.Node.Lease {
		lease.Grant(tx, ino)
	}
	return in.Attr, nil
}

func checkNode(n meta.Node) error {
	switch n.Mode & meta.TypeMask {
	case meta.TypeSymlink:
		switch {
		case n.Target == "":
			return fmt.Errorf("empty target: %w", meta.NotExist) // as symlink(2)
		case len(n.Target) > meta.SymlinkMax:
			return fmt.Errorf("target of %d bytes: %w", len(n.Target), meta.NameTooLong)
		case strings.ContainsRune(n.Target, 0):
			return fmt.Errorf("zero byte in the target: %w", meta.Invalid)
		}
		return nil
	case meta.TypeFile, meta.TypeDir, meta.TypeFIFO, meta.TypeSocket, meta.TypeChar, meta.TypeBlock:
		if n.Target != "" {
			return fmt.Errorf("target without a symlink: %w", meta.Invalid)
		}
		return nil
	}
	return fmt.Errorf("mode %o has no known type: %w", n.Mode, meta.Invalid)
}
