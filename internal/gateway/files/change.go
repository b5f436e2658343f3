package files

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"syscall"
	"time"

	"dos/fuse/vfs"
	"dos/internal/access"
	"dos/meta"
)

// The modes of what is made, as with the usual umask.
const (
	defaultFile = 0o644
	defaultDir  = 0o755
	modes       = 0o777
)

// putting says how a file is put.
type putting struct {
	mode uint32 // of one that is not there yet
	new  bool   // if there is one it stays: Exist
	// parents makes the directories above that are not there.
	parents bool
}

// put makes the file what body is, and says whether there was none.
func (q request) put(ctx context.Context, body io.Reader, how putting) (made bool, err error) {
	p, err := q.target(ctx, how.new)
	if how.parents && errors.Is(err, meta.NotExist) {
		if err := q.mkdirs(ctx, path.Dir(q.path), defaultDir); err != nil {
			return false, err
		}
		p, err = q.target(ctx, how.new)
	}
	if err != nil {
		return false, err
	}
	name, err := q.temporary(ctx, p, body, how.mode)
	if err != nil {
		return false, err
	}
	for {
		flags := meta.RenameFlags(0)
		if !p.Exists() {
			flags = meta.RenameNoReplace
		}
		err = q.fs.Rename(ctx, p.Dir.Ino, name, p.Dir.Ino, p.Name, flags)
		q.changed(p.Dir.Ino, name, 0)
		q.changed(p.Dir.Ino, p.Name, p.Attr.Ino)
		if !errors.Is(err, meta.Exist) || p.Exists() {
			break
		}
		var again access.Place // somebody has made it meanwhile
		if again, err = q.target(ctx, how.new); err == nil && again.Dir.Ino != p.Dir.Ino {
			err = meta.Conflict
		}
		if err != nil {
			break
		}
		p = again
	}
	if err != nil {
		q.discard(ctx, p.Dir.Ino, name)
	}
	return !p.Exists(), err
}

// target is where a file is to be put, if that is allowed.
func (q request) target(ctx context.Context, new bool) (access.Place, error) {
	p, err := q.find(ctx, q.path, true)
	switch {
	case err != nil:
		return p, err
	case !p.Exists():
		if !q.who.May(p.Dir, access.Write|access.Enter) {
			return p, meta.Permission
		}
		return p, meta.CheckName(p.Name)
	case p.Attr.IsDir():
		return p, meta.IsDir
	case new:
		return p, meta.Exist
	case !p.Attr.IsFile():
		return p, fmt.Errorf("it is no file: %w", meta.Unsupported)
	case !q.who.May(p.Attr, access.Write):
		return p, meta.Permission
	}
	return p, nil
}

// temporary stores body beside the target.
func (q request) temporary(ctx context.Context, p access.Place, body io.Reader, mode uint32) (name string, err error) {
	node := meta.Node{Mode: meta.TypeFile | mode&modes, UID: q.who.UID, GID: q.who.GID}
	if p.Exists() {
		node = meta.Node{Mode: meta.TypeFile | p.Attr.Mode&modes, UID: p.Attr.UID, GID: p.Attr.GID}
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	name = ".put-" + hex.EncodeToString(random[:])
	a, f, err := q.fs.CreateOpen(ctx, p.Dir.Ino, name, node, syscall.O_WRONLY|syscall.O_EXCL)
	if err != nil {
		return "", err
	}
	defer f.Release()
	if p.Exists() {
		err = q.inherit(ctx, p.Attr, a)
	}
	if err == nil {
		err = fill(ctx, f, body, 0)
	}
	if err != nil {
		q.discard(ctx, p.Dir.Ino, name)
	}
	return name, err
}

// inherit gives a file what the one has that it shall replace, so that it is the same but for
// its contents. A fence among that is heeded by what is written then.
func (q request) inherit(ctx context.Context, old, a meta.Attr) error {
	if a.GID != old.GID { // the directory's was taken
		if _, err := q.fs.SetAttr(ctx, a.Ino, meta.SetAttr{GID: &old.GID}); err != nil {
			return err
		}
	}
	names, err := q.fs.Xattrs(ctx, old.Ino)
	for _, name := range names {
		if err != nil {
			break
		}
		var val []byte
		if val, err = q.fs.Xattr(ctx, old.Ino, name); err == nil {
			err = q.fs.SetXattr(ctx, a.Ino, name, val, 0)
		}
		if errors.Is(err, meta.NoAttr) { // it was removed meanwhile
			err = nil
		}
	}
	return err
}

// discardWait bounds the attempt to remove what was not completed.
const discardWait = 10 * time.Second

func (q request) discard(ctx context.Context, dir meta.Ino, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardWait)
	defer cancel()
	_ = q.fs.Unlink(ctx, dir, name) // what stopped the request may stop this too
	q.changed(dir, name, 0)
}

// fill writes body to a file and stores it.
func fill(ctx context.Context, f *vfs.File, body io.Reader, how vfs.WriteFlags) error {
	buffer := make([]byte, bufferSize)
	for off := int64(0); ; {
		n := 0
		var err error
		for n < len(buffer) && err == nil { // io.ReadFull would hide that a body was cut
			var m int
			m, err = body.Read(buffer[n:])
			n += m
		}
		if n > 0 {
			if _, err := f.WriteAt(ctx, buffer[:n], off, how); err != nil {
				return err
			}
			off += int64(n)
		}
		switch {
		case err == io.EOF:
			return f.Flush(ctx)
		case err != nil:
			return fmt.Errorf("the request's body: %w: %v", meta.Invalid, err)
		}
	}
}

// append adds body to the end of a file that is there.
func (q request) append(ctx context.Context, body io.Reader) error {
	a, err := q.reach(ctx, access.Write)
	if err != nil {
		return err
	}
	f, err := q.fs.Open(ctx, a.Ino, syscall.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Release()
	how := vfs.Append
	if q.who.UID != 0 {
		how |= vfs.KillPriv
	}
	err = fill(ctx, f, body, how)
	q.changed(0, "", a.Ino)
	return err
}

// mkdirs makes a directory and those above it that are not there.
func (q request) mkdirs(ctx context.Context, at string, mode uint32) error {
	for {
		p, err := q.find(ctx, at, true)
		if errors.Is(err, meta.NotExist) {
			if err := q.mkdirs(ctx, path.Dir(path.Clean(at)), mode|0o300); err != nil { // as mkdir -p: below them more is made
				return err
			}
			p, err = q.find(ctx, at, true)
		}
		switch {
		case err != nil:
			return err
		case p.Exists() && !p.Attr.IsDir():
			return meta.Exist
		case p.Exists():
			return nil
		case !q.who.May(p.Dir, access.Write|access.Enter):
			return meta.Permission
		}
		_, err = q.fs.Create(ctx, p.Dir.Ino, p.Name, meta.Node{Mode: meta.TypeDir | mode&0o1777, UID: q.who.UID, GID: q.who.GID})
		q.changed(p.Dir.Ino, p.Name, 0)
		if !errors.Is(err, meta.Exist) { // else somebody was faster
			return err
		}
	}
}

// remove takes away what is at the path, and what is below it if recursive says so.
func (q request) remove(ctx context.Context, recursive bool) error {
	p, err := q.find(ctx, q.path, false)
	switch {
	case err != nil:
		return err
	case !p.Exists():
		return meta.NotExist
	case p.Name == "":
		return fmt.Errorf("the root stays: %w", meta.Busy)
	}
	return q.removeAt(ctx, p.Dir, p.Name, p.Attr, recursive)
}

func (q request) removeAt(ctx context.Context, dir meta.Attr, name string, a meta.Attr, recursive bool) error {
	if !q.who.MayRemove(dir, a) {
		return meta.Permission
	}
	defer q.changed(dir.Ino, name, a.Ino)
	if !a.IsDir() {
		return q.fs.Unlink(ctx, dir.Ino, name)
	}
	if recursive {
		if err := q.empty(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return q.fs.Rmdir(ctx, dir.Ino, name)
}

// empty removes what is in a directory.
func (q request) empty(ctx context.Context, dir meta.Attr) error {
	if !q.who.May(dir, access.Read) {
		return meta.Permission
	}
	return q.each(ctx, dir, true, func(name string, a meta.Attr) error {
		err := q.removeAt(ctx, dir, name, a, true)
		if errors.Is(err, meta.NotExist) { // somebody else removed it
			err = nil
		}
		return err
	})
}

// rename moves what is at the path, as rename(2) does.
func (q request) rename(ctx context.Context, from, to access.Place, flags meta.RenameFlags) error {
	switch {
	case from.Name == "" || to.Name == "":
		return fmt.Errorf("the root stays: %w", meta.Busy)
	case !q.who.MayRemove(from.Dir, from.Attr), !q.who.May(to.Dir, access.Write|access.Enter),
		to.Exists() && !q.who.MayRemove(to.Dir, to.Attr),
		from.Attr.IsDir() && from.Dir.Ino != to.Dir.Ino && !q.who.May(from.Attr, access.Write): // its .. changes
		return meta.Permission
	}
	err := q.fs.Rename(ctx, from.Dir.Ino, from.Name, to.Dir.Ino, to.Name, flags)
	q.changed(from.Dir.Ino, from.Name, from.Attr.Ino)
	q.changed(to.Dir.Ino, to.Name, to.Attr.Ino)
	return err
}
