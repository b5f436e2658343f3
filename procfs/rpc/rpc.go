// Package rpc is /dos/rpc: calls between processes, on whatever machines they are. Its
// help file, in help.go, is its manual page.
//
// A service is a directory. Who may search it may call the service, and who may write
// to it may serve it: else anybody could answer in another's name.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
	"dos/procfs"
)

// A Room is the directory, of one mount.
type Room struct {
	dialer *client.Dialer
	server *client.Server
	node   string
}

// New returns the directory. node is the name of the machine that it is on.
func New(d *client.Dialer, s *client.Server, node string) procfs.Dir { return root{&Room{d, s, node}} }

// The nodes are comparable values, so that the same thing has the same inode number.
type (
	root struct{ room *Room }
	// A dir is a service.
	dir struct {
		room    *Room
		service string
	}
	// instances is its directory of who serves.
	instances struct{ dir }
	instance  struct {
		dir
		number uint64
	}
	// A file is one of its files.
	file struct {
		dir
		name     string
		patient  bool
		patience time.Duration
	}
	hidden struct{ file }
)

func (hidden) Unlisted() {}

func (r root) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "rpc", Mode: meta.TypeDir | meta.Sticky | 0o777}, nil
}

func (r root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == "help" {
		return help.File(), nil
	}
	if strings.HasPrefix(name, ".") {
		return nil, meta.NotExist
	}
	if _, err := r.room.dialer.Status(ctx, name); err != nil {
		return nil, plain(err)
	}
	return dir{r.room, name}, nil
}

// plain says that something is not there without saying more: that is an everyday
// answer.
func plain(err error) error {
	if errors.Is(err, meta.NotExist) {
		return meta.NotExist
	}
	return err
}

func (r root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		if info, err := help.File().Stat(ctx); !yield(info, err) {
			return
		}
		list, err := r.room.dialer.List(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, s := range list {
			if !yield(info(s, s.Name, meta.TypeDir|s.Mode), nil) {
				return
			}
		}
	}
}

// Create makes a service.
func (r root) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	switch {
	case mode&meta.TypeMask != meta.TypeDir:
		return nil, fmt.Errorf("%q: a service is made with mkdir: %w", name, meta.Fixed)
	case name == "help":
		return nil, meta.Exist
	}
	err := r.room.dialer.Make(ctx, call.Make{Name: name, UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask})
	return dir{r.room, name}, err
}

func (r root) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	if name == "help" {
		return fmt.Errorf("%q belongs to the directory: %w", name, meta.Fixed)
	}
	return r.room.dialer.Remove(ctx, name)
}

// info is what a node of a service says of itself.
func info(s call.Service, name string, mode uint32) procfs.Info {
	return procfs.Info{Name: name, Mode: mode, UID: s.UID, GID: s.GID, Mtime: s.Changed}
}

func (d dir) status(ctx context.Context) (call.Status, error) {
	st, err := d.room.dialer.Status(ctx, d.service)
	return st, plain(err)
}

func (d dir) Stat(ctx context.Context) (procfs.Info, error) {
	st, err := d.status(ctx)
	return info(st.Service, d.service, meta.TypeDir|st.Service.Mode), err
}

// Set changes the owner and the mode.
func (d dir) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	return d.room.dialer.Set(ctx, call.Set{Name: d.service, UID: c.UID, GID: c.GID, Mode: c.Mode})
}

// A kind is one of the files of a service.
type kind struct {
	name   string
	mode   func(service uint32) uint32
	listed bool
	waits  bool // it may have a patience
	open   func(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error)
	text   func(ctx context.Context, d dir) (string, error) // of a snapshot, instead of open
}

// serving are the permissions of what only who may write to the directory does.
func serving(mode uint32) (may uint32) {
	for shift := 0; shift <= 6; shift += 3 {
		if mode>>shift&2 != 0 {
			may |= 6 << shift
		}
	}
	return may
}

func always(mode uint32) func(uint32) uint32 { return func(uint32) uint32 { return mode } }

var kinds = []kind{
	{name: "call", mode: always(0o666), listed: true, open: openCall},
	{name: "ctl", mode: func(mode uint32) uint32 { return serving(mode) | 0o444 }, listed: true, open: openControl},
	{name: "status", mode: always(0o444), listed: true, text: statusText},
	{name: "serve", mode: serving, waits: true, open: openServe},
	{name: "register", mode: serving, open: openRegister},
}

const instancesDir = "instances"

func (d dir) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == instancesDir {
		return instances{d}, nil
	}
	base, patience, err := procfs.Patience(name)
	if err != nil {
		return nil, meta.NotExist
	}
	for _, k := range kinds {
		if k.name != base || patience != nil && !k.waits {
			continue
		}
		f := file{dir: d, name: base}
		if patience != nil {
			f.patient, f.patience = true, *patience
		}
		if !k.listed {
			return hidden{f}, nil
		}
		return f, nil
	}
	return nil, meta.NotExist
}

func (d dir) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		st, err := d.status(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		if !yield(info(st.Service, instancesDir, meta.TypeDir|0o555), nil) {
			return
		}
		for _, k := range kinds {
			if k.listed && !yield(info(st.Service, k.name, meta.TypeFile|k.mode(st.Service.Mode)), nil) {
				return
			}
		}
	}
}

func (f file) kind() kind {
	for _, k := range kinds {
		if k.name == f.name {
			return k
		}
	}
	panic(fmt.Sprintf("rpc: there is no file %q", f.name))
}

// Blocks says that writing may wait, for somebody who takes the call.
func (f file) Blocks() {}

func (f file) Stat(ctx context.Context) (procfs.Info, error) {
	st, err := f.status(ctx)
	if err != nil {
		return procfs.Info{}, err
	}
	k := f.kind()
	out := info(st.Service, f.name, meta.TypeFile|k.mode(st.Service.Mode))
	if k.text != nil {
		text, err := k.text(ctx, f.dir)
		out.Size = int64(len(text))
		return out, err
	}
	return out, nil
}

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	k := f.kind()
	if k.text == nil {
		return k.open(ctx, f, how)
	}
	text, err := k.text(ctx, f.dir)
	if err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text)
}

func (i instances) Stat(ctx context.Context) (procfs.Info, error) {
	st, err := i.status(ctx)
	return info(st.Service, instancesDir, meta.TypeDir|0o555), err
}

func (i instances) Set(context.Context, procfs.Change, procfs.Caller) error {
	return fmt.Errorf("service %q: its owner and mode are those of its directory: %w", i.service, meta.Fixed)
}

func (i instances) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	number, err := strconv.ParseUint(name, 10, 64)
	if err != nil {
		return nil, meta.NotExist
	}
	in := instance{i.dir, number}
	_, err = in.Stat(ctx)
	return in, err
}

func (i instances) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		st, err := i.status(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, in := range st.Instances {
			if in.At != "" && !yield(info(st.Service, strconv.FormatUint(in.Number, 10), meta.TypeFile|0o444), nil) {
				return
			}
		}
	}
}

func (i instance) load(ctx context.Context) (call.Service, string, error) {
	st, err := i.status(ctx)
	if err != nil {
		return st.Service, "", err
	}
	in, is := st.Instance(i.number)
	if !is || in.At == "" {
		return st.Service, "", meta.NotExist
	}
	return st.Service, instanceText(in, i.look(ctx, in)), nil
}

func (i instance) Stat(ctx context.Context) (procfs.Info, error) {
	s, text, err := i.load(ctx)
	out := info(s, strconv.FormatUint(i.number, 10), meta.TypeFile|0o444)
	out.Size = int64(len(text))
	return out, err
}

func (i instance) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	_, text, err := i.load(ctx)
	if err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text)
}
