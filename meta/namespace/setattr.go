package namespace

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

func setAttr(tx *state.Tx, req SetAttr) (meta.Attr, error) {
	in, err := changeAt(tx, req.Ino)
	if err != nil {
		return meta.Attr{}, err
	}
	set := req.Set
	if set == (meta.SetAttr{}) {
		return in.Attr, nil
	}
	in.touch(tx)
	if set.Size != nil {
		if err := in.admitted(tx); err != nil {
			return meta.Attr{}, err
		}
		if err := truncate(tx, in, *set.Size); err != nil {
			return meta.Attr{}, err
		}
	}
	if set.Mode != nil && in.Attr.Type() != meta.TypeSymlink {
		in.Attr.Mode = in.Attr.Type() | *set.Mode&modeMask&^meta.TypeMask
	}
	if set.UID != nil {
		in.Attr.UID = *set.UID
	}
	if set.GID != nil {
		in.Attr.GID = *set.GID
	}
	if set.Atime != nil {
		in.Attr.Atime = *set.Atime
	}
	if set.Mtime != nil {
		in.Attr.Mtime = *set.Mtime
	}
	if set.UID != nil || set.GID != nil || set.Size != nil {
		in.forget(tx, capability)
	}
	if set.KillPriv {
		in.killPriv()
	}
	put(tx, in)
	return in.Attr, nil
}

// killPriv clears the set-id bits: set-group-ID only where it has that
// meaning, on what its group can execute.
func (in *inode) killPriv() {
	if in.Attr.IsDir() {
		return
	}
	in.Attr.Mode &^= meta.SetUID
	if in.Attr.Mode&0o010 != 0 {
		in.Attr.Mode &^= meta.SetGID
	}
}

// truncate makes the file size bytes long.
func truncate(tx *state.Tx, in *inode, size int64) error {
	if err := in.file(); err != nil {
		return err
	}
	if err := checkSize(size); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	in.modify(tx) // ext4 does so also when the size stays
	if size < in.Attr.Size {
		ed := editOf(tx, in)
		if err := ed.cut(size, in.Attr.Size); err != nil {
			return err
		}
		in.Attr.Size = size
		if err := ed.done(); err != nil {
			return err
		}
		ed.mark()
	}
	in.Attr.Size = size
	return nil
}
