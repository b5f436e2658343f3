// Package locks is /dos/locks: locks that have names, for all machines. Its help
// file is its manual page.
package locks

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"
	"sync"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/named"
	"dos/procfs"
)

// A Room is the directory, of one mount.
type Room struct {
	locks *client.Named
	node  string

	mu      sync.Mutex
	open    map[string]int // handles of locks by name; guarded by mu, as all below
	watched map[string]int
}

// New returns the directory. node is the name of the machine that it is on.
func New(l *client.Named, node string) procfs.Dir {
	return dir{&Room{locks: l, node: node, open: make(map[string]int), watched: make(map[string]int)}, ""}
}

// A dir is a directory of locks; "" is the first one.
type dir struct {
	room *Room
	path string
}

func (d dir) Stat(ctx context.Context) (procfs.Info, error) {
	if d.path == "" {
		return procfs.Info{Name: "locks", Mode: meta.TypeDir | meta.Sticky | 0o777}, nil
	}
	info, err := d.room.locks.Status(ctx, d.path)
	switch {
	case err != nil:
		return procfs.Info{}, err
	case info.Dir == nil:
		return procfs.Info{}, meta.NotExist
	}
	return dirInfo(path.Base(d.path), info.Dir), nil
}

func dirInfo(name string, d *named.Dir) procfs.Info {
	return procfs.Info{Name: name, Mode: meta.TypeDir | d.Mode, UID: d.UID, GID: d.GID, Mtime: d.Made}
}

func (d dir) below(name string) string { return path.Join(d.path, name) }

func (d dir) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	switch {
	case d.path == "" && name == "help":
		return manual.File(), nil
	case d.path == "" && name == ".hold":
		return hidden{d.room, "", hold}, nil
	case d.path == "" && name == ".watch":
		return hidden{d.room, "", watch}, nil
	case strings.HasPrefix(name, "."):
		return nil, meta.NotExist
	}
	full := d.below(name)
	if d.room.known(full) {
		return lock{d.room, full}, nil
	}
	info, err := d.room.locks.Status(ctx, full)
	switch {
	case err != nil:
		return nil, err
	case info.Dir != nil:
		return dir{d.room, full}, nil
	case info.There || info.Lent != 0:
		return lock{d.room, full}, nil
	}
	return nil, meta.NotExist
}

// known reports whether a lock is open or claimed here.
func (r *Room) known(name string) bool {
	r.mu.Lock()
	open := r.open[name] > 0
	r.mu.Unlock()
	return open || r.locks.Known(name)
}

func (d dir) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		if d.path == "" {
			if info, err := manual.File().Stat(ctx); !yield(info, err) {
				return
			}
		}
		list, err := d.room.locks.List(ctx, d.path)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		there := make(map[string]bool, len(list))
		for _, e := range list {
			there[e.Name] = true
			info := lockInfo(e.Name)
			if e.Dir != nil {
				info = dirInfo(e.Name, e.Dir)
			}
			if !yield(info, nil) {
				return
			}
		}
		for _, name := range d.room.opened(d.path) {
			if !there[name] && !yield(lockInfo(name), nil) {
				return
			}
		}
	}
}

// opened lists the locks in a directory that are open here.
func (r *Room) opened(in string) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for full := range r.open {
		if before, name := path.Split(full); strings.TrimSuffix(before, "/") == in {
			names = append(names, name)
		}
	}
	return names
}

// Create makes a directory, or a lock, of which nobody needs to know before it is locked.
func (d dir) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	full := d.below(name)
	if err := named.Valid(full); err != nil {
		return nil, err
	}
	if d.path == "" && name == "help" {
		return nil, meta.Exist
	}
	switch mode & meta.TypeMask {
	case meta.TypeFile:
		return lock{d.room, full}, nil
	case meta.TypeDir:
		err := d.room.locks.Mkdir(ctx, full, named.Dir{UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask})
		return dir{d.room, full}, err
	}
	return nil, fmt.Errorf("%q is to be neither a lock nor a directory: %w", name, meta.Fixed)
}

func (d dir) Remove(ctx context.Context, name string, by procfs.Caller) error {
	full := d.below(name)
	if d.path == "" && (name == "help" || strings.HasPrefix(name, ".")) {
		return fmt.Errorf("%q belongs to the directory: %w", name, meta.Fixed)
	}
	info, err := d.room.locks.Status(ctx, full)
	if err != nil {
		return err
	}
	if info.Dir != nil {
		return d.room.locks.Rmdir(ctx, full)
	}
	err = d.room.locks.Remove(ctx, full)
	if errors.Is(err, meta.NotExist) && d.room.known(full) {
		return nil // it is open, and nothing else
	}
	return err
}

// A hidden directory holds, for each name, a file that waits.
type hidden struct {
	room *Room
	path string
	kind kind
}

type kind int

const (
	hold kind = iota
	watch
)

func (d hidden) Unlisted() {}

func (d hidden) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Mode: meta.TypeDir | 0o555}, nil
}

func (d hidden) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	full := path.Join(d.path, name)
	base, patience, err := procfs.Patience(name)
	if err != nil || d.kind == watch {
		base, patience = name, nil
	}
	if err := named.Valid(full); err != nil {
		return nil, meta.NotExist
	}
	info, err := d.room.locks.Status(ctx, full)
	switch {
	case err != nil:
		return nil, err
	case info.Dir != nil:
		return hidden{d.room, full, d.kind}, nil
	case d.kind == watch:
		return watcher{d.room, full}, nil
	case patience == nil:
		return holder{d.room, full, false, 0}, nil
	}
	return holder{d.room, path.Join(d.path, base), true, *patience}, nil
}

func (d hidden) Entries(context.Context) iter.Seq2[procfs.Info, error] {
	return func(func(procfs.Info, error) bool) {}
}

// stale says that what somebody had is lost as the kernel is to hear it.
func stale(err error) error {
	if errors.Is(err, meta.Expired) {
		return fmt.Errorf("%v: %w", err, meta.Conflict)
	}
	return err
}
