// Package cache is the special directory /dos/cache: entries in the memory of all
// machines. Its manual is the file help, in help.go.
//
// A bucket is a directory, a key a path in it, and an entry a whole-file object that
// everybody may read and write who may search the bucket. Directories in a bucket are
// made and stay; entries may go. A byte that a name cannot hold is %XX in it
// (procfs.KeyPart). What else there is to do with a bucket is in files whose names begin
// with a dot, which no name of a key may.
package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	entries "dos/internal/cache"
	"dos/meta"
	"dos/meta/cache"
	"dos/procfs"
)

// Buckets is what this directory needs of the cache (internal/cache.Client).
type Buckets interface {
	Make(ctx context.Context, req cache.Make) error
	Remove(ctx context.Context, bucket string) error
	SetBucket(ctx context.Context, req cache.Set) error
	Bucket(ctx context.Context, name string) (cache.Bucket, error)
	Buckets(ctx context.Context) ([]cache.Bucket, error)
	Mkdir(ctx context.Context, bucket, path string) error
	Rmdir(ctx context.Context, bucket, path string) error
	IsDir(ctx context.Context, bucket, path string) (bool, error)
	Dirs(ctx context.Context, bucket, path string) ([]string, error)
	Entries
}

// Entries is what it needs of the entries.
type Entries interface {
	Get(ctx context.Context, bucket, key string) (entries.Entry, error)
	Stat(ctx context.Context, bucket, key string) (entries.Entry, error)
	Find(ctx context.Context, bucket, key string) (cache.Bucket, entries.Entry, error)
	Set(ctx context.Context, bucket, key string, value []byte, o entries.Options) (uint64, error)
	Delete(ctx context.Context, bucket, key string, version uint64) error
	Expire(ctx context.Context, bucket, key string, ttl time.Duration) error
	Incr(ctx context.Context, bucket, key string, by int64) (int64, error)
	Fill(ctx context.Context, bucket, key string, wait bool) (entries.Entry, *entries.Filling, error)
	Scan(ctx context.Context, bucket string, visit func(key string) bool) error
	Stats(ctx context.Context, bucket string) ([]entries.Stats, error)
	Watch(ctx context.Context, bucket string) (*entries.Watch, error)
}

// New returns the directory.
func New(b Buckets) procfs.Dir { return &root{b} }

type root struct{ Buckets }

// The nodes below are comparable values, so that the same thing has the same inode
// number each time it is looked up.
type (
	// A dir is a bucket, or a directory in it: then its path ends in a slash.
	dir struct {
		*root
		bucket, path string
	}
	// A value is an entry.
	value struct {
		*root
		bucket, key string
	}
	// A file is .ctl or .status of a bucket.
	file struct {
		*root
		bucket, name string
	}
)

// rootMode is as that of /tmp: everybody makes buckets, and removes his own.
const rootMode = 0o1777

func (r *root) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "cache", Mode: meta.TypeDir | rootMode, Good: procfs.Always}, nil
}

func (r *root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == "help" {
		return help.File(), nil
	}
	if _, err := r.Bucket(ctx, name); err != nil {
		return nil, err
	}
	return dir{r, name, ""}, nil
}

// Find is Lookup, and what is found.
func (r *root) Find(ctx context.Context, name string) (n procfs.Node, is, own procfs.Info, err error) {
	if name == "help" {
		is, err = help.File().Stat(ctx)
		return help.File(), is, own, err
	}
	b, err := r.Bucket(ctx, name)
	return dir{r, name, ""}, dirInfo(b, name), own, err
}

func (r *root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		list, err := r.Buckets.Buckets(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, b := range list {
			if !yield(dirInfo(b, b.Name), nil) {
				return
			}
		}
		yield(help.File().Stat(ctx))
	}
}

func dirInfo(b cache.Bucket, name string) procfs.Info {
	return procfs.Info{Name: name, Mode: meta.TypeDir | b.Mode, UID: b.UID, GID: b.GID, Mtime: b.Mtime, Good: procfs.OneCall}
}

// Create makes a bucket.
func (r *root) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	if mode&meta.TypeMask != meta.TypeDir {
		return nil, fmt.Errorf("%q: entries are in buckets, which mkdir makes: %w", name, meta.Fixed)
	}
	if name == "help" {
		return nil, meta.Exist
	}
	err := r.Make(ctx, cache.Make{Name: name, UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask})
	return dir{r, name, ""}, err
}

func (r *root) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	if name == "help" {
		return meta.Fixed
	}
	if err := (dir{r, name, ""}).empty(ctx); err != nil {
		return err
	}
	return r.Buckets.Remove(ctx, name)
}

// empty refuses what has entries.
func (d dir) empty(ctx context.Context) error {
	var some error
	err := d.Scan(ctx, d.bucket, func(key string) bool {
		if strings.HasPrefix(key, d.path) {
			some = fmt.Errorf("%q has entries; `echo clear > .ctl` in the bucket drops all: %w", d.bucket+"/"+d.path, meta.NotEmpty)
		}
		return some == nil
	})
	if err == nil {
		err = some
	}
	return err
}

func (d dir) Stat(ctx context.Context) (procfs.Info, error) {
	b, err := d.Bucket(ctx, d.bucket)
	if err == nil && d.path != "" {
		var is bool
		if is, err = d.IsDir(ctx, d.bucket, strings.TrimSuffix(d.path, "/")); err == nil && !is {
			err = meta.NotExist
		}
	}
	if d.path != "" {
		return dirInfo(b, procfs.KeyLast(d.path)), err
	}
	return dirInfo(b, d.bucket), err
}

func (d dir) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name[0] == '.' {
		return d.special(name)
	}
	n, _, _, err := d.find(ctx, name)
	return n, err
}

// Find is Lookup, and what is found and the directory are.
func (d dir) Find(ctx context.Context, name string) (n procfs.Node, is, own procfs.Info, err error) {
	if name[0] != '.' {
		return d.find(ctx, name)
	}
	if n, err = d.special(name); err == nil {
		is, err = n.Stat(ctx)
	}
	return n, is, own, err
}

// find finds a directory or an entry.
func (d dir) find(ctx context.Context, name string) (n procfs.Node, is, own procfs.Info, err error) {
	path := d.path + procfs.KeyPart(name)
	if len(path) > cache.KeyMax {
		return nil, is, own, meta.NotExist
	}
	b, e, err := d.Buckets.Find(ctx, d.bucket, path)
	if b.ID == 0 {
		if err == nil {
			err = meta.NotExist
		}
		return nil, is, own, err
	}
	own = dirInfo(b, "")
	if b.Dirs > 0 { // in most there are none
		held, err := d.IsDir(ctx, d.bucket, path)
		if err != nil {
			return nil, is, own, err
		}
		if held {
			return dir{d.root, d.bucket, path + "/"}, dirInfo(b, name), own, nil
		}
	}
	// What may be there is: who removes it must not be told that it is gone. Reading it is
	// a miss.
	if err != nil && !errors.Is(err, meta.HostDown) {
		return nil, is, own, err
	}
	v := value{d.root, d.bucket, path}
	return v, v.infoIn(b, e), own, nil
}

// holds reports whether a path is a directory. In most buckets there is none.
func (d dir) holds(ctx context.Context, path string) (bool, error) {
	b, err := d.Bucket(ctx, d.bucket)
	if err != nil || b.Dirs == 0 {
		return false, err
	}
	return d.IsDir(ctx, d.bucket, path)
}

func (d dir) special(name string) (procfs.Node, error) {
	if d.path != "" {
		return nil, meta.NotExist
	}
	switch name {
	case ".ctl", ".status":
		return file{d.root, d.bucket, name}, nil
	case ".watch":
		return watched{file{d.root, d.bucket, name}}, nil
	case ".fill", ".incr":
		return asked{d, name}, nil
	}
	return nil, meta.NotExist
}

// Entries lists directories and keys. Those with a part that is too long for a name, or
// below a directory that nobody made, are for the API.
func (d dir) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		b, err := d.Bucket(ctx, d.bucket)
		seen := make(map[string]bool)
		show := func(info procfs.Info) bool {
			if seen[info.Name] || info.Name == "" || info.Name[0] == '.' || len(info.Name) > meta.NameMax {
				return true
			}
			seen[info.Name] = true
			return yield(info, nil)
		}
		more := true
		if err == nil && b.Dirs > 0 {
			var names []string
			names, err = d.Dirs(ctx, d.bucket, strings.TrimSuffix(d.path, "/"))
			for i := 0; i < len(names) && more; i++ {
				more = show(dirInfo(b, procfs.KeyName(names[i])))
			}
		}
		if err == nil && more {
			err = d.Scan(ctx, d.bucket, func(key string) bool {
				if name, in := strings.CutPrefix(key, d.path); in && !strings.Contains(name, "/") {
					more = show(procfs.Info{Name: procfs.KeyName(name), Mode: valueMode, UID: b.UID, GID: b.GID})
				}
				return more
			})
		}
		if err != nil && more {
			yield(procfs.Info{}, err)
		}
	}
}

// Create makes a directory; entries are made by Make.
func (d dir) Create(ctx context.Context, name string, mode uint32, _ procfs.Caller) (procfs.Node, error) {
	path := d.path + procfs.KeyPart(name)
	switch mode & meta.TypeMask {
	case meta.TypeDir:
		if _, err := d.Buckets.Stat(ctx, d.bucket, path); !errors.Is(err, meta.NotExist) {
			if err == nil {
				err = meta.Exist
			}
			return nil, err
		}
		return dir{d.root, d.bucket, path + "/"}, d.Mkdir(ctx, d.bucket, path)
	case meta.TypeFile: // mknod
		if err := named(name); err != nil {
			return nil, err
		}
		_, err := d.Buckets.Set(ctx, d.bucket, path, nil, entries.Options{Add: true})
		return value{d.root, d.bucket, path}, err
	}
	return nil, fmt.Errorf("%q is neither an entry nor a directory: %w", name, meta.Fixed)
}

func named(name string) error {
	if name[0] == '.' {
		return fmt.Errorf("%q: names that begin with a dot are reserved: %w", name, meta.Invalid)
	}
	return nil
}

func (d dir) Make(ctx context.Context, name string, _ uint32, how procfs.Open) (procfs.Node, procfs.MadeHandle, error) {
	if err := named(name); err != nil {
		return nil, nil, err
	}
	b, err := d.Bucket(ctx, d.bucket)
	if err != nil {
		return nil, nil, err
	}
	v := value{d.root, d.bucket, d.path + procfs.KeyPart(name)}
	h, err := v.object().Make(ctx, how, procfs.Info{Name: name, Mode: valueMode, UID: b.UID, GID: b.GID})
	return v, h, err
}

func (d dir) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	n, err := d.Lookup(ctx, name)
	if err != nil {
		return err
	}
	switch n := n.(type) {
	case value:
		if err := d.Delete(ctx, d.bucket, n.key, 0); !errors.Is(err, meta.NotExist) {
			return err
		}
		return nil // it was there, and went by itself
	case dir:
		if err := n.empty(ctx); err != nil {
			return err
		}
		return d.Rmdir(ctx, d.bucket, strings.TrimSuffix(n.path, "/"))
	}
	return meta.Fixed
}

func (d dir) Movable(name string) bool { return name[0] != '.' }

// Rename moves an entry: it is written under the other key and then deleted under its own.
func (d dir) Rename(ctx context.Context, name string, to procfs.Node, newName string, noReplace bool, _ procfs.Caller) error {
	other, ok := to.(dir)
	if !ok || other.root != d.root {
		return fmt.Errorf("an entry stays in the cache: %w", meta.Fixed)
	}
	if err := named(newName); err != nil {
		return err
	}
	n, err := d.Lookup(ctx, name)
	if err != nil {
		return err
	}
	v, ok := n.(value)
	if !ok {
		return fmt.Errorf("%q: directories of keys stay where they are: %w", name, meta.Fixed)
	}
	path := other.path + procfs.KeyPart(newName)
	if is, err := other.holds(ctx, path); is || err != nil {
		if err == nil {
			err = meta.IsDir
		}
		return err
	}
	if other.bucket == d.bucket && path == v.key {
		return nil
	}
	e, err := d.Get(ctx, d.bucket, v.key)
	if err != nil {
		return err
	}
	o := entries.Options{TTL: e.TTL, Add: noReplace}
	if e.TTL == 0 {
		o.TTL = entries.Forever
	}
	if _, err := d.Buckets.Set(ctx, other.bucket, path, e.Value, o); err != nil {
		return err
	}
	err = d.Delete(ctx, d.bucket, v.key, e.Version)
	if errors.Is(err, meta.NotExist) || errors.Is(err, meta.Conflict) { // another has come in its place
		err = nil
	}
	return err
}

// Set changes a bucket; what is in it is as the bucket is.
func (d dir) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	if d.path == "" {
		return d.SetBucket(ctx, cache.Set{Name: d.bucket, UID: c.UID, GID: c.GID, Mode: c.Mode})
	}
	info, err := d.Stat(ctx)
	if err != nil {
		return err
	}
	return same(info, c)
}

// same refuses to change what cannot be changed.
func same(is procfs.Info, c procfs.Change) error {
	if c.Mode != nil && *c.Mode != is.Mode&^meta.TypeMask || c.UID != nil && *c.UID != is.UID || c.GID != nil && *c.GID != is.GID {
		return fmt.Errorf("what is in a bucket has the bucket's owner, and no mode of its own: %w", meta.Fixed)
	}
	return nil
}
