package namespace

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

func rename(tx *state.Tx, req Rename) (none, error) {
	const known = meta.RenameNoReplace | meta.RenameExchange
	if req.Flags&^known != 0 || req.Flags == known {
		return none{}, fmt.Errorf("flags %#x: %w", uint32(req.Flags), meta.Invalid)
	}
	from, err := parentOf(tx, req.Parent, req.Name)
	if err != nil {
		return none{}, err
	}
	to := from
	if req.NewParent != req.Parent {
		if to, err = dirAt(tx, req.NewParent); err != nil {
			return none{}, err
		}
	}
	if err := nameable(req.NewParent, req.NewName); err != nil {
		return none{}, err
	}
	src, err := find(tx, from, req.Name)
	if err != nil {
		return none{}, err
	}
	if err := src.in.mayChange(tx); err != nil {
		return none{}, err
	}
	if err := src.in.admitted(tx); err != nil {
		return none{}, err
	}
	if err := apart(tx, src.in, to); err != nil {
		return none{}, err
	}
	dst, err := find(tx, to, req.NewName)
	there := err == nil
	switch {
	case there && req.Flags&meta.RenameNoReplace != 0:
		return none{}, meta.Exist
	case !there && req.Flags&meta.RenameExchange != 0:
		return none{}, err
	case there && src.in.Attr.Ino == dst.in.Attr.Ino:
		return none{}, nil // POSIX: two names of one inode stay as they are
	}
	if there {
		if err := dst.in.mayChange(tx); err != nil {
			return none{}, err
		}
		if err := dst.in.admitted(tx); err != nil {
			return none{}, err
		}
	}
	if req.Flags&meta.RenameExchange != 0 {
		return none{}, exchange(tx, src, dst)
	}
	if there {
		if err := replaceable(src.in, dst.in); err != nil {
			return none{}, err
		}
		dst.leave(tx)
		if err := lose(tx, dst.in, req.Keep); err != nil {
			return none{}, err
		}
	}
	src.leave(tx)
	if err := enter(tx, to, req.NewName, src.in); err != nil {
		return none{}, err
	}
	src.in.touch(tx)
	put(tx, src.in)
	put(tx, from)
	put(tx, to)
	return none{}, nil
}

// exchange swaps two names.
func exchange(tx *state.Tx, a, b named) error {
	if err := apart(tx, b.in, a.dir); err != nil {
		return err
	}
	a.leave(tx)
	b.leave(tx)
	if err := enter(tx, b.dir, b.name, a.in); err != nil {
		return err
	}
	if err := enter(tx, a.dir, a.name, b.in); err != nil {
		return err
	}
	a.in.touch(tx)
	b.in.touch(tx)
	for _, in := range []*inode{a.in, b.in, a.dir, b.dir} {
		put(tx, in)
	}
	return nil
}

// apart refuses to put a directory below itself.
func apart(tx *state.Tx, in, dir *inode) error {
	if !in.Attr.IsDir() {
		return nil
	}
	for dir.Attr.Ino != in.Attr.Ino {
		if dir.Attr.Ino == meta.Root || dir.Attr.Nlink == 0 {
			return nil // a removed directory is below nothing
		}
		up, err := inodeAt(tx, dir.Parent)
		if err != nil {
			panic(fmt.Sprintf("namespace: directory %d has no parent: %v", dir.Attr.Ino, err))
		}
		dir = up
	}
	return fmt.Errorf("directory %d into itself: %w", in.Attr.Ino, meta.Invalid)
}

// replaceable says whether dst may make room for src.
func replaceable(src, dst *inode) error {
	switch {
	case src.Attr.IsDir() && !dst.Attr.IsDir():
		return meta.NotDir
	case !src.Attr.IsDir() && dst.Attr.IsDir():
		return meta.IsDir
	case dst.Entries > 0:
		return meta.NotEmpty
	}
	return nil
}
