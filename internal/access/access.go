// Package access is what a user may do with the files of the stored tree where no kernel
// stands before it: paths are followed, and permissions checked, as the kernel does for
// a mount. It does not change anything.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dos/meta"
	"dos/procfs"
)

// A User is somebody who asks. UID 0 may do everything.
type User struct {
	UID, GID uint32
	Groups   []uint32 // besides GID
}

// What may be wanted of a file or a directory; a sum of these.
const (
	Read  = 4
	Write = 2
	Enter = 1 // of a directory: to go through it
)

// May says whether the user may do all of want with what has these attributes.
func (u User) May(a meta.Attr, want uint32) bool {
	mode := a.Mode
	switch {
	case u.UID == 0:
		return true
	case u.UID == a.UID:
		mode >>= 6
	case u.In(a.GID):
		mode >>= 3
	}
	return mode&want == want
}

// In says whether the user is in a group.
func (u User) In(group uint32) bool { return u.GID == group || slices.Contains(u.Groups, group) }

// sticky is the mode bit of a directory in which all may make names, and remove their own.
const sticky = 0o1000

// MayRemove says whether the user may take away the name of a file in a directory.
func (u User) MayRemove(dir, file meta.Attr) bool {
	if !u.May(dir, Write|Enter) {
		return false
	}
	return dir.Mode&sticky == 0 || u.UID == 0 || u.UID == file.UID || u.UID == dir.UID
}

// Tree is what is looked at (vfs.FS).
type Tree interface {
	Attr(ctx context.Context, ino meta.Ino) (meta.Attr, error)
	Lookup(ctx context.Context, parent meta.Ino, name string) (meta.Attr, error)
	Readlink(ctx context.Context, ino meta.Ino) (string, error)
}

// A Walker follows paths.
type Walker struct {
	Tree Tree
	// Absolute says what path of the tree the target of a symbolic link is that begins with
	// a slash.
	Absolute func(target string) (string, error)
}

// A Place is where a path leads to. The root is in itself and has no name.
type Place struct {
	Dir  meta.Attr
	Name string
	Attr meta.Attr // Ino 0: there is nothing of that name
}

// Exists says whether there is something.
func (p Place) Exists() bool { return p.Attr.Ino != 0 }

// linksMax bounds the symbolic links on a way, as the kernel does.
const linksMax = 40

// Find follows a path from the root as far as the user may go; with last also a symbolic link
// at its end. That the last name is not there is no error. NotExist, NotDir,
// Permission; Invalid for what is no file of the tree.
func (w Walker) Find(ctx context.Context, u User, path string, last bool) (Place, error) {
	a, err := w.Tree.Attr(ctx, meta.Root)
	if err != nil {
		return Place{}, err
	}
	way := []Place{{Dir: a, Attr: a}} // from the root to where it is
	left := strings.Split(path, "/")
	for links := 0; len(left) > 0; {
		name := left[0]
		left = left[1:]
		here := way[len(way)-1]
		if name == "" || name == "." {
			if here.Exists() && !here.Attr.IsDir() && name == "." {
				return Place{}, meta.NotDir
			}
			continue
		}
		switch {
		case !here.Exists():
			return Place{}, meta.NotExist
		case !here.Attr.IsDir():
			return Place{}, meta.NotDir
		case !u.May(here.Attr, Enter):
			return Place{}, meta.Permission
		case name == "..":
			way = way[:max(1, len(way)-1)]
			continue
		case len(way) == 1 && procfs.Reserved(name):
			return Place{}, fmt.Errorf("/%s is no file of the tree: %w", name, meta.Invalid)
		}
		next, err := w.Tree.Lookup(ctx, here.Attr.Ino, name)
		if err == nil {
			next, err = w.Tree.Attr(ctx, next.Ino)
		}
		if errors.Is(err, meta.NotExist) {
			next, err = meta.Attr{}, nil
		}
		if err != nil {
			return Place{}, err
		}
		if next.Type() != meta.TypeSymlink || !last && !slices.ContainsFunc(left, func(n string) bool { return n != "" }) {
			way = append(way, Place{Dir: here.Attr, Name: name, Attr: next})
			continue
		}
		if links++; links > linksMax {
			return Place{}, fmt.Errorf("more than %d symbolic links: %w", linksMax, meta.Invalid)
		}
		target, err := w.Tree.Readlink(ctx, next.Ino)
		if err != nil {
			return Place{}, err
		}
		if strings.HasPrefix(target, "/") {
			if target, err = w.Absolute(target); err != nil {
				return Place{}, err
			}
			way = way[:1]
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return way[len(way)-1], nil
}

// Reach is Find of what must be there, and of what the user may do all of want with.
func (w Walker) Reach(ctx context.Context, u User, path string, want uint32) (meta.Attr, error) {
	p, err := w.Find(ctx, u, path, true)
	switch {
	case err != nil:
		return meta.Attr{}, err
	case !p.Exists():
		return meta.Attr{}, meta.NotExist
	case !u.May(p.Attr, want):
		return p.Attr, meta.Permission
	}
	return p.Attr, nil
}
