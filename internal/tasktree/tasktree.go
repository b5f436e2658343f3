// Package tasktree is what tasks need of the stored tree: what they read and write, which
// is kept in a directory that no name of a mount reaches, and the files that their
// options name, looked at with the rights of their owner.
//
// The directory has the name "tasks" in the root, where a mount shows /dos/tasks. In it
// is a file for each stream of a task that anything was written to:
//
//	JOB.STREAM            of a task that is no element of an array
//	ARRAY/INDEX.STREAM    of an element
//
// They are ordinary files, so leases, caches, erasure coding and quotas are as for all.
// A stdin that nobody may write to has reached its end.
package tasktree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"dos/fuse/vfs"
	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
	"dos/procfs/tasks"
)

// Dir is the name of the directory, in the root.
const Dir = "tasks"

// Config says what a Tree is made of.
type Config struct {
	FS    *vfs.FS
	Mount string // where the tree is mounted
	// Near says which machines have what of a file, by how many bytes of it; optional.
	Near func(ctx context.Context, ino meta.Ino) (map[string]int64, error)
}

// A Tree implements tasks.Host.
type Tree struct {
	cfg Config
	top atomic.Uint64 // the inode of the directory; 0: not known yet
}

// New returns a Tree.
func New(c Config) *Tree { return &Tree{cfg: c} }

const (
	modeDir  = meta.TypeDir | 0o700
	modeOpen = meta.TypeFile | 0o600
	modeEnd  = 0o400 // of what has reached its end
)

// dir finds a directory in another, or makes it.
func (t *Tree) dir(ctx context.Context, parent meta.Ino, name string, make bool) (meta.Ino, error) {
	a, err := t.cfg.FS.Lookup(ctx, parent, name)
	if errors.Is(err, meta.NotExist) && make {
		a, err = t.cfg.FS.Create(ctx, parent, name, meta.Node{Mode: modeDir, Hidden: parent == meta.Root})
		if errors.Is(err, meta.Exist) { // another was faster
			a, err = t.cfg.FS.Lookup(ctx, parent, name)
		}
	}
	return a.Ino, err
}

// place is where a stream of a task is: a directory and a name.
func (t *Tree) place(ctx context.Context, id task.ID, stream tasks.Stream, make bool) (dir meta.Ino, name string, err error) {
	dir = meta.Ino(t.top.Load())
	if dir == 0 {
		if dir, err = t.dir(ctx, meta.Root, Dir, make); err != nil {
			return 0, "", err
		}
		t.top.Store(uint64(dir))
	}
	if i, ok := id.Index(); ok {
		dir, err = t.dir(ctx, dir, id.Array().String(), make)
		return dir, fmt.Sprintf("%d.%s", i, stream), err
	}
	return dir, fmt.Sprintf("%v.%s", id, stream), nil
}

func (t *Tree) find(ctx context.Context, id task.ID, stream tasks.Stream) (meta.Attr, error) {
	dir, name, err := t.place(ctx, id, stream, false)
	if err != nil {
		return meta.Attr{}, err
	}
	a, err := t.cfg.FS.Lookup(ctx, dir, name)
	if err != nil {
		return a, err
	}
	return t.cfg.FS.Attr(ctx, a.Ino)
}

// Stat says how long a stream is and when it changed last.
func (t *Tree) Stat(ctx context.Context, id task.ID, stream tasks.Stream) (int64, meta.Time, error) {
	a, err := t.find(ctx, id, stream)
	if errors.Is(err, meta.NotExist) {
		return 0, 0, nil
	}
	return a.Size, a.Mtime, err
}

// Ended says whether a stream has reached its end.
func (t *Tree) Ended(ctx context.Context, id task.ID, stream tasks.Stream) (bool, error) {
	a, err := t.find(ctx, id, stream)
	if errors.Is(err, meta.NotExist) {
		return false, nil
	}
	return err == nil && a.Mode&0o200 == 0, err
}

// End says that a stream has reached its end.
func (t *Tree) End(ctx context.Context, id task.ID, stream tasks.Stream, owner task.Owner) error {
	f, err := t.make(ctx, id, stream, owner)
	if err != nil {
		return err
	}
	defer f.Release()
	if err := f.Flush(ctx); err != nil {
		return err
	}
	mode := uint32(modeEnd)
	_, err = t.cfg.FS.SetAttr(ctx, f.Ino(), meta.SetAttr{Mode: &mode})
	return err
}

// make opens a stream to append to it.
func (t *Tree) make(ctx context.Context, id task.ID, stream tasks.Stream, owner task.Owner) (*vfs.File, error) {
	dir, name, err := t.place(ctx, id, stream, true)
	if err != nil {
		return nil, err
	}
	_, f, err := t.cfg.FS.CreateOpen(ctx, dir, name, meta.Node{Mode: modeOpen, UID: owner.UID, GID: owner.GID}, syscall.O_WRONLY)
	return f, err
}

// Open opens a stream.
func (t *Tree) Open(ctx context.Context, id task.ID, stream tasks.Stream, owner task.Owner, how procfs.Open) (procfs.Handle, error) {
	if !how.Write {
		return &reader{tree: t, id: id, stream: stream}, nil
	}
	if how.Read {
		return nil, fmt.Errorf("%s is read, or appended to: %w", stream, meta.Permission)
	}
	f, err := t.make(ctx, id, stream, owner)
	if err != nil {
		return nil, err
	}
	return &writer{f}, nil
}

// A writer appends.
type writer struct{ file *vfs.File }

func (w *writer) ReadAt(context.Context, []byte, int64) (int, error) { return 0, meta.Permission }

func (w *writer) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	return w.file.WriteAt(ctx, p, 0, vfs.Append)
}

func (w *writer) Flush(ctx context.Context, _ procfs.Closer) error { return w.file.Flush(ctx) }

// Sync is procfs.Syncer's.
func (w *writer) Sync(ctx context.Context) error { return w.file.Fsync(ctx, true) }

func (w *writer) Close(context.Context) error {
	w.file.Release()
	return nil
}

// A reader reads what is there, as soon as there is something.
type reader struct {
	tree   *Tree
	id     task.ID
	stream tasks.Stream

	mu   sync.Mutex
	file *vfs.File // nil: nothing was written yet; guarded by mu
}

func (r *reader) open(ctx context.Context) (*vfs.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		return r.file, nil
	}
	a, err := r.tree.find(ctx, r.id, r.stream)
	if err == nil {
		r.file, err = r.tree.cfg.FS.Open(ctx, a.Ino, syscall.O_RDONLY)
	}
	if errors.Is(err, meta.NotExist) {
		err = io.EOF
	}
	return r.file, err
}

func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f, err := r.open(ctx)
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(ctx, p, off)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (r *reader) WriteAt(context.Context, []byte, int64) (int, error) { return 0, meta.Permission }

func (r *reader) Close(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		r.file.Release()
		r.file = nil
	}
	return nil
}

// Files are the calls of the tree that Clear needs (meta/client.Files).
type Files interface {
	Lookup(ctx context.Context, parent meta.Ino, name string) (meta.Attr, error)
	Entries(ctx context.Context, dir meta.Ino, after string, limit int, attrs bool) (list []meta.Entry, more bool, err error)
	Unlink(ctx context.Context, parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error)
	Rmdir(ctx context.Context, parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error)
}

// Clear removes what is left of the streams of a job that is forgotten, and of its
// elements.
func Clear(ctx context.Context, f Files, number uint64) error {
	top, err := f.Lookup(ctx, meta.Root, Dir)
	if errors.Is(err, meta.NotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	job := task.ID{Job: number}.String()
	for _, stream := range []tasks.Stream{tasks.Stdin, tasks.Stdout, tasks.Stderr} {
		if _, err := f.Unlink(ctx, top.Ino, job+"."+string(stream), 0); err != nil && !errors.Is(err, meta.NotExist) {
			return err
		}
	}
	dir, err := f.Lookup(ctx, top.Ino, job)
	if errors.Is(err, meta.NotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		list, more, err := f.Entries(ctx, dir.Ino, "", 256, false)
		if err != nil {
			return err
		}
		for _, e := range list {
			if strings.Trim(e.Name, ".") == "" {
				continue
			}
			if _, err := f.Unlink(ctx, dir.Ino, e.Name, 0); err != nil && !errors.Is(err, meta.NotExist) {
				return err
			}
		}
		if !more {
			break
		}
	}
	if _, err := f.Rmdir(ctx, top.Ino, job, 0); err != nil && !errors.Is(err, meta.NotExist) {
		return err
	}
	return nil
}
