// Package kv is the special directory /dos/kv: tables of small values. Its manual is
// the file help, in help.go.
//
// A table is a directory, a key a path in it, and a value a whole-file object. A
// byte that a name cannot hold is %XX in it (procfs.KeyPart). What else there is to do
// with a table is in files whose names begin with a dot, which no key may.
//
// The kernel checks who may what by owner and mode of tables, directories and
// values. What goes past it, because a line names other keys, is checked here
// (access.go).
package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"dos/meta"
	"dos/meta/kv"
	"dos/meta/txn"
	"dos/procfs"
)

// Tables is what this directory needs of the service (meta/client.KV).
type Tables interface {
	Make(ctx context.Context, req kv.Make) error
	Drop(ctx context.Context, table string) error
	SetTable(ctx context.Context, req kv.SetTable) error
	Table(ctx context.Context, name string) (kv.Table, error)
	Tables(ctx context.Context) ([]kv.Table, error)
	Put(ctx context.Context, req kv.Put) (uint64, error)
	Get(ctx context.Context, table, key string) (kv.Entry, error)
	Stat(ctx context.Context, table, key string) (kv.Entry, error)
	Delete(ctx context.Context, req kv.Delete) (uint64, error)
	Set(ctx context.Context, req kv.Set) error
	Rename(ctx context.Context, req kv.Rename) error
	Scan(ctx context.Context, req kv.Scan) (kv.Scanned, error)
	List(ctx context.Context, table, dir string) ([]kv.Entry, error)
	Follow(ctx context.Context, table string, after uint64) (kv.Changes, error)
	Commit(ctx context.Context, steps []txn.Step) ([]string, error)
}

// New returns the directory. others are the verbs that transactions may have beside
// those of this room.
func New(t Tables, others map[string]Verb) procfs.Dir { return &root{t, others} }

type root struct {
	kv     Tables
	others map[string]Verb
}

// The nodes below are comparable values, so that the same thing has the same inode
// number each time it is looked up.
type (
	// A dir is a table, or a directory in it: then its key ends in a slash.
	dir struct {
		*root
		table, key string
	}
	value struct {
		*root
		table, key string
	}
	// A file is one of the files of a table whose names begin with a dot.
	file struct {
		dir
		name string
	}
	hidden struct{ file }
)

func (hidden) Unlisted() {}

// rootMode is as that of /tmp: everybody makes tables, and removes his own.
const rootMode = 0o1777

func (r *root) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "kv", Mode: meta.TypeDir | rootMode}, nil
}

func (r *root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == "help" {
		return help.File(), nil
	}
	if _, err := r.kv.Table(ctx, name); err != nil {
		return nil, plain(err)
	}
	return dir{r, name, ""}, nil
}

func (r *root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		tables, err := r.kv.Tables(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, t := range tables {
			if !yield(tableInfo(t), nil) {
				return
			}
		}
		yield(help.File().Stat(ctx))
	}
}

// plain says that something is not there without saying more: that is an everyday
// answer.
func plain(err error) error {
	if errors.Is(err, meta.NotExist) {
		return meta.NotExist
	}
	return err
}

func tableInfo(t kv.Table) procfs.Info {
	return procfs.Info{Name: t.Name, Mode: meta.TypeDir | t.Mode, UID: t.UID, GID: t.GID, Mtime: t.Mtime}
}

// Create makes a table.
func (r *root) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	if mode&meta.TypeMask != meta.TypeDir {
		return nil, fmt.Errorf("%q: values are in tables, which mkdir makes: %w", name, meta.Fixed)
	}
	if name == "help" {
		return nil, meta.Exist
	}
	err := r.kv.Make(ctx, kv.Make{Name: name, UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask})
	return dir{r, name, ""}, err
}

func (r *root) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	if name == "help" {
		return meta.Fixed
	}
	return r.kv.Drop(ctx, name)
}

func (d dir) Stat(ctx context.Context) (procfs.Info, error) {
	t, err := d.kv.Table(ctx, d.table)
	if err != nil || d.key == "" {
		return tableInfo(t), plain(err)
	}
	e, err := d.kv.Stat(ctx, d.table, d.key)
	return entryInfo(e), plain(err)
}

func entryInfo(e kv.Entry) procfs.Info {
	kind := uint32(meta.TypeFile)
	if e.Dir {
		kind = meta.TypeDir
	}
	return procfs.Info{Name: procfs.KeyLast(e.Key), Mode: kind | e.Mode, UID: e.UID, GID: e.GID, Size: int64(e.Size), Mtime: e.Mtime}
}

func (d dir) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if d.key == "" && name[0] == '.' {
		switch name {
		case ".ctl", ".status":
			return file{d, name}, nil
		case ".txn", ".scan", ".watch":
			return hidden{file{d, name}}, nil
		}
		return nil, meta.NotExist
	}
	e, err := d.kv.Stat(ctx, d.table, d.key+procfs.KeyPart(name))
	switch {
	case errors.Is(err, meta.NotExist), errors.Is(err, meta.Invalid), errors.Is(err, meta.NameTooLong):
		return nil, meta.NotExist
	case err != nil:
		return nil, err
	case e.Dir:
		return dir{d.root, d.table, e.Key}, nil
	}
	return value{d.root, d.table, e.Key}, nil
}

// Entries lists keys. Those with a part that is too long for a name are for the API.
func (d dir) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		list, err := d.kv.List(ctx, d.table, d.key)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, e := range list {
			if info := entryInfo(e); len(info.Name) <= meta.NameMax && !yield(info, nil) {
				return
			}
		}
	}
}

// Create makes a directory; values are made by Make.
func (d dir) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	key := d.key + procfs.KeyPart(name)
	switch mode & meta.TypeMask {
	case meta.TypeDir:
		_, err := d.kv.Put(ctx, kv.Put{Table: d.table, Key: key + "/", UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask})
		return dir{d.root, d.table, key + "/"}, err
	case meta.TypeFile: // mknod
		_, err := d.kv.Put(ctx, kv.Put{Table: d.table, Key: key, UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask, Only: new(uint64)})
		if errors.Is(err, meta.Conflict) {
			err = meta.Exist
		}
		return value{d.root, d.table, key}, err
	}
	return nil, fmt.Errorf("%q is neither a value nor a directory: %w", name, meta.Fixed)
}

func (d dir) Make(ctx context.Context, name string, mode uint32, how procfs.Open) (procfs.Node, procfs.MadeHandle, error) {
	if name[0] == '.' {
		return nil, nil, fmt.Errorf("%q: names that begin with a dot are reserved: %w", name, meta.Invalid)
	}
	v := value{d.root, d.table, d.key + procfs.KeyPart(name)}
	info := procfs.Info{Name: name, Mode: mode, UID: how.Caller.UID, GID: how.Caller.GID}
	h, err := v.object(info).Make(ctx, how, info)
	return v, h, err
}

func (d dir) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	n, err := d.Lookup(ctx, name)
	if err != nil {
		return err
	}
	key := ""
	switch n := n.(type) {
	case value:
		key = n.key
	case dir:
		key = n.key
	default:
		return meta.Fixed
	}
	_, err = d.kv.Delete(ctx, kv.Delete{Table: d.table, Key: key})
	return plain(err)
}

func (d dir) Movable(name string) bool { return name[0] != '.' }

func (d dir) Rename(ctx context.Context, name string, to procfs.Node, newName string, noReplace bool, _ procfs.Caller) error {
	other, ok := to.(dir)
	if !ok || other.root != d.root {
		return fmt.Errorf("a value stays in a table: %w", meta.Fixed)
	}
	n, err := d.Lookup(ctx, name)
	if err != nil {
		return err
	}
	v, ok := n.(value)
	if !ok {
		return fmt.Errorf("%q: directories of keys stay where they are: %w", name, meta.Fixed)
	}
	return d.kv.Rename(ctx, kv.Rename{Table: d.table, Key: v.key, ToTable: other.table, ToKey: other.key + procfs.KeyPart(newName), NoReplace: noReplace})
}

func (d dir) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	if d.key == "" {
		return d.kv.SetTable(ctx, kv.SetTable{Name: d.table, UID: c.UID, GID: c.GID, Mode: c.Mode})
	}
	return d.kv.Set(ctx, kv.Set{Table: d.table, Key: d.key, UID: c.UID, GID: c.GID, Mode: c.Mode})
}

// valueMax is the largest value, in bytes.
const valueMax = kv.ValueMax

func (v value) Stat(ctx context.Context) (procfs.Info, error) {
	e, err := v.kv.Stat(ctx, v.table, v.key)
	if err == nil && e.Dir {
		err = meta.NotExist
	}
	return entryInfo(e), plain(err)
}

func (v value) Truncatable() {}

func (v value) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	return v.object(procfs.Info{}).Open(ctx, how)
}

// object is what is stored at the key; made is what it is to be if it does not exist.
func (v value) object(made procfs.Info) procfs.Object {
	return procfs.Object{Value: stored{v, made}, Max: valueMax}
}

func (v value) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	return v.kv.Set(ctx, kv.Set{Table: v.table, Key: v.key, UID: c.UID, GID: c.GID, Mode: c.Mode, Touch: c.Touch})
}

func (v value) Xattrs(ctx context.Context) (map[string]string, error) {
	e, err := v.kv.Stat(ctx, v.table, v.key)
	if err != nil {
		return nil, plain(err)
	}
	attrs := map[string]string{"version": strconv.FormatUint(e.Version, 10)}
	if e.TTL > 0 {
		attrs["ttl"] = e.TTL.String()
	}
	return attrs, nil
}

func (v value) SetXattr(ctx context.Context, name string, text *string, _ procfs.Caller) error {
	if name != "ttl" {
		return fmt.Errorf("user.dos.%s is not to be set: %w", name, meta.Fixed)
	}
	ttl := time.Duration(0)
	if text != nil {
		var err error
		if ttl, err = procfs.Duration(*text); err != nil {
			return err
		}
	}
	return v.kv.Set(ctx, kv.Set{Table: v.table, Key: v.key, TTL: &ttl})
}

// A stored is the value as a whole-file object.
type stored struct {
	value
	made procfs.Info
}

func (s stored) Load(ctx context.Context) ([]byte, uint64, error) {
	e, err := s.kv.Get(ctx, s.table, s.key)
	switch {
	case err != nil:
		return nil, 0, plain(err)
	case e.Dir:
		return nil, 0, meta.IsDir
	}
	return e.Data, e.Version, nil
}

func (s stored) Check(ctx context.Context, size int, only *uint64) error {
	e, err := s.kv.Stat(ctx, s.table, s.key)
	if err != nil && !errors.Is(err, meta.NotExist) {
		return err
	}
	if only != nil && *only != e.Version {
		return fmt.Errorf("%s has version %d, not %d: %w", s.key, e.Version, *only, meta.Conflict)
	}
	t, err := s.kv.Table(ctx, s.table)
	if err != nil {
		return err
	}
	grown := int64(size - e.Size)
	if e.Version == 0 {
		grown += int64(len(s.key))
	}
	if t.Quota > 0 && t.Bytes+grown > t.Quota {
		return fmt.Errorf("table %s would have %d bytes, its quota is %d: %w", s.table, t.Bytes+grown, t.Quota, meta.Quota)
	}
	return nil
}

func (s stored) Remove(ctx context.Context, version uint64) error {
	_, err := s.kv.Delete(ctx, kv.Delete{Table: s.table, Key: s.key, Only: &version})
	return err
}

func (s stored) Store(ctx context.Context, data []byte, only *uint64) (uint64, error) {
	return s.kv.Put(ctx, kv.Put{
		Table: s.table, Key: s.key, Data: data, Only: only,
		UID: s.made.UID, GID: s.made.GID, Mode: s.made.Mode &^ meta.TypeMask,
	})
}
