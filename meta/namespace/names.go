package namespace

import (
	"fmt"
	"slices"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// Reserved are the names in the root directory that belong to special
// directories: no stored entry can have one.
func Reserved() []string { return slices.Clone(reserved) }

var reserved = []string{"cache", "cluster", "kv", "locks", "nodes", "queues", "rpc", "tasks"}

// hidden is the one of the reserved names that a directory has all the same, once it is
// made as meta.Node.Hidden says: a mount shows the special directory in its place. Nothing
// removes or renames it.
const hidden = "tasks"

// nameable says whether a command may make or remove name in dir.
func nameable(dir meta.Ino, name string) error {
	if err := meta.CheckName(name); err != nil {
		return fmt.Errorf("name of %d bytes: %w", len(name), err)
	}
	if dir == meta.Root && slices.Contains(reserved, name) {
		return fmt.Errorf("%q is reserved: %w", name, meta.Busy)
	}
	return nil
}

// hides says whether a command makes the hidden directory.
func hides(req Create) bool {
	return req.Parent == meta.Root && req.Name == hidden && req.Node.Hidden && req.Node.Mode&meta.TypeMask == meta.TypeDir
}

// parentOf returns the directory that a command is about to change name in.
func parentOf(tx *state.Tx, dir meta.Ino, name string) (*inode, error) {
	in, err := dirAt(tx, dir)
	if err != nil {
		return nil, err
	}
	return in, nameable(dir, name)
}

// A named is an inode and the name that led to it.
type named struct {
	dir  *inode
	name string
	in   *inode
}

// find returns what name in dir leads to.
func find(r state.Reader, dir *inode, name string) (named, error) {
	d, ok := load[dentry](r, dentryKey(dir.Attr.Ino, name))
	if !ok {
		return named{}, meta.NotExist
	}
	in, err := inodeAt(r, d.Ino)
	if err != nil {
		panic(fmt.Sprintf("namespace: %q in %d leads nowhere: %v", name, dir.Attr.Ino, err))
	}
	return named{dir, name, in}, nil
}

// enter puts a name into dir, which the caller saves. The name must be free.
func enter(tx *state.Tx, dir *inode, name string, in *inode) error {
	switch {
	case dir.Attr.Nlink == 0:
		return fmt.Errorf("directory %d was removed: %w", dir.Attr.Ino, meta.NotExist)
	case in.Attr.IsDir() && dir.Attr.Nlink >= meta.LinkMax:
		return fmt.Errorf("directory %d: %w", dir.Attr.Ino, meta.TooManyLinks)
	}
	save(tx, dentryKey(dir.Attr.Ino, name), dentry{in.Attr.Ino, in.Attr.Type()})
	dir.Entries++
	if in.Attr.IsDir() {
		dir.Attr.Nlink++
		in.Parent = dir.Attr.Ino
	}
	dir.modify(tx)
	return nil
}

// leave takes a name out of its directory, which the caller saves.
func (n named) leave(tx *state.Tx) {
	tx.Delete(dentryKey(n.dir.Attr.Ino, n.name))
	n.dir.Entries--
	if n.in.Attr.IsDir() {
		n.dir.Attr.Nlink--
	}
	n.dir.modify(tx)
}

// lose takes one name from an inode whose entry is gone, and saves it or lets
// it go with its last name, unless the session keeps it.
func lose(tx *state.Tx, in *inode, keep meta.Ino) error {
	if in.Attr.IsDir() {
		in.Attr.Nlink = 0
	} else {
		in.Attr.Nlink--
	}
	in.touch(tx)
	if in.Attr.Nlink > 0 {
		put(tx, in)
		return nil
	}
	var keepers int64
	if keep == in.Attr.Ino {
		if tx.Session == 0 {
			return fmt.Errorf("keeping inode %d without a session: %w", keep, meta.Invalid)
		}
		tx.Set(orphanKey(tx.Session, keep), []byte{})
		keepers++
	}
	if in.Attr.IsFile() {
		for _, s := range session.Others(tx, tx.Session) {
			tx.Set(askedKey(s, in.Attr.Ino), []byte{})
			keepers++
		}
	}
	if keepers == 0 {
		new(burial).vanish(tx, in)
		return nil
	}
	in.Keepers = keepers - 1
	put(tx, in)
	return nil
}

func link(tx *state.Tx, req Link) (meta.Attr, error) {
	dir, err := parentOf(tx, req.Parent, req.Name)
	if err != nil {
		return meta.Attr{}, err
	}
	in, err := changeAt(tx, req.Ino)
	switch {
	case err != nil:
		return meta.Attr{}, err
	case in.Attr.IsDir():
		return meta.Attr{}, fmt.Errorf("inode %d is a directory: %w", req.Ino, meta.Fixed)
	case in.Attr.Nlink == 0:
		return meta.Attr{}, fmt.Errorf("inode %d has no name: %w", req.Ino, meta.NotExist)
	case has(tx, dentryKey(req.Parent, req.Name)):
		return meta.Attr{}, meta.Exist
	case in.Attr.Nlink >= meta.LinkMax:
		return meta.Attr{}, meta.TooManyLinks
	}
	if err := enter(tx, dir, req.Name, in); err != nil {
		return meta.Attr{}, err
	}
	in.Attr.Nlink++
	in.touch(tx)
	put(tx, dir)
	put(tx, in)
	return in.Attr, nil
}

func unlink(tx *state.Tx, req Unlink) (meta.Attr, error) {
	dir, err := parentOf(tx, req.Parent, req.Name)
	if err != nil {
		return meta.Attr{}, err
	}
	at, err := find(tx, dir, req.Name)
	if err != nil {
		return meta.Attr{}, err
	}
	if at.in.Attr.IsDir() {
		return meta.Attr{}, meta.IsDir
	}
	if err := at.in.mayChange(tx); err != nil {
		return meta.Attr{}, err
	}
	if err := at.in.admitted(tx); err != nil {
		return meta.Attr{}, err
	}
	return at.drop(tx, req.Keep)
}

func rmdir(tx *state.Tx, req Unlink) (meta.Attr, error) {
	dir, err := parentOf(tx, req.Parent, req.Name)
	if err != nil {
		return meta.Attr{}, err
	}
	at, err := find(tx, dir, req.Name)
	switch {
	case err != nil:
		return meta.Attr{}, err
	case !at.in.Attr.IsDir():
		return meta.Attr{}, meta.NotDir
	case at.in.Entries > 0:
		return meta.Attr{}, meta.NotEmpty
	}
	return at.drop(tx, req.Keep)
}

// drop removes the name and returns the inode's attributes afterwards.
func (n named) drop(tx *state.Tx, keep meta.Ino) (meta.Attr, error) {
	n.leave(tx)
	put(tx, n.dir)
	err := lose(tx, n.in, keep)
	return n.in.Attr, err
}
