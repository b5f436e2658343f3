package namespace

import (
	"errors"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// TestLinkMax fills inodes up to their last link by changing their rows.
func TestLinkMax(t *testing.T) {
	s, dir, file, _ := full(t)
	m := new(state.Machine)
	session.Register(m, Release)
	Register(m)
	o := state.NewOverlay(s)
	fill := func(ino meta.Ino, n uint32) {
		in, _ := load[inode](o, inodeKey(ino))
		in.Attr.Nlink = n
		o.Set(inodeKey(ino), state.Marshal(in))
	}
	fill(dir, meta.LinkMax-1)
	fill(file, meta.LinkMax-1)
	tests := []struct {
		op   state.Op
		req  any
		want meta.Kind
	}{
		{OpLink, Link{Ino: file, Parent: dir, Name: "g"}, 0},
		{OpLink, Link{Ino: file, Parent: dir, Name: "h"}, meta.TooManyLinks},
		{OpCreate, Create{Parent: dir, Name: "x", Node: meta.Node{Mode: meta.TypeDir}}, 0},
		{OpCreate, Create{Parent: dir, Name: "y", Node: meta.Node{Mode: meta.TypeDir}}, meta.TooManyLinks},
		{OpCreate, Create{Parent: dir, Name: "y", Node: meta.Node{Mode: meta.TypeFile}}, 0},
		{OpCreate, Create{Parent: meta.Root, Name: "z", Node: meta.Node{Mode: meta.TypeDir}}, 0},
		{OpRename, Rename{Parent: meta.Root, Name: "z", NewParent: dir, NewName: "z"}, meta.TooManyLinks},
		{OpRename, Rename{Parent: meta.Root, Name: "z", NewParent: dir, NewName: "y", Flags: meta.RenameExchange}, meta.TooManyLinks},
		{OpRename, Rename{Parent: meta.Root, Name: "z", NewParent: dir, NewName: "x", Flags: meta.RenameExchange}, 0},
		{OpRename, Rename{Parent: meta.Root, Name: "z", NewParent: dir, NewName: "x"}, 0}, // over another directory
	}
	for _, tt := range tests {
		err := m.Apply(o, state.Command{Op: tt.op, Time: 2e18, Body: state.Marshal(tt.req)}).Err()
		if tt.want == 0 && err != nil || tt.want != 0 && !errors.Is(err, tt.want) {
			t.Errorf("%+v: got %v, want kind %v", tt.req, err, tt.want)
		}
	}
}

// What is kept is one inode, and for a session.
func TestKeepWhat(t *testing.T) {
	s, dir, file, _ := full(t)
	m := new(state.Machine)
	session.Register(m, Release)
	Register(m)
	body := state.Marshal(Unlink{Parent: dir, Name: "f", Keep: file})
	if reply := m.Apply(state.NewOverlay(s), state.Command{Op: OpUnlink, Time: 2e18, Body: body}); reply.Kind != meta.Invalid {
		t.Errorf("without a session: %v", reply.Err())
	}
	body = state.Marshal(Unlink{Parent: dir, Name: "f", Keep: file + 1})
	o := state.NewOverlay(s)
	if err := m.Apply(o, state.Command{Op: OpUnlink, Time: 2e18, Session: 1, Body: body}).Err(); err != nil {
		t.Fatal(err)
	}
	if has(o, inodeKey(file)) || has(o, orphanKey(1, file)) {
		t.Error("another inode than the one to be kept is kept")
	}
	if p := problems(o); len(p) > 0 {
		t.Errorf("%q", p)
	}
}

// The hidden directory can be made, once, and by nobody who does not say so; it stays.
func TestHidden(t *testing.T) {
	s, dir, file, _ := full(t)
	m := new(state.Machine)
	session.Register(m, Release)
	Register(m)
	o := state.NewOverlay(s)
	make := func(parent meta.Ino, name string, node meta.Node) Create {
		return Create{Parent: parent, Name: name, Node: node}
	}
	for _, step := range []struct {
		what string
		op   state.Op
		req  any
		want error
	}{
		{"not said", OpCreate, make(meta.Root, "tasks", meta.Node{Mode: meta.TypeDir}), meta.Busy},
		{"a file", OpCreate, make(meta.Root, "tasks", meta.Node{Mode: meta.TypeFile, Hidden: true}), meta.Busy},
		{"another name", OpCreate, make(meta.Root, "locks", meta.Node{Mode: meta.TypeDir, Hidden: true}), meta.Busy},
		{"made", OpCreate, make(meta.Root, "tasks", meta.Node{Mode: meta.TypeDir | 0o700, Hidden: true}), nil},
		{"again", OpCreate, make(meta.Root, "tasks", meta.Node{Mode: meta.TypeDir, Hidden: true}), meta.Exist},
		{"removed", OpRmdir, Unlink{Parent: meta.Root, Name: "tasks"}, meta.Busy},
		{"moved away", OpRename, Rename{Parent: meta.Root, Name: "tasks", NewParent: dir, NewName: "x"}, meta.Busy},
		{"replaced", OpRename, Rename{Parent: dir, Name: "f", NewParent: meta.Root, NewName: "tasks"}, meta.Busy},
		{"linked", OpLink, Link{Ino: file, Parent: meta.Root, Name: "tasks"}, meta.Busy},
	} {
		if err := m.Apply(o, state.Command{Op: step.op, Time: 2e18, Body: state.Marshal(step.req)}).Err(); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.what, err, step.want)
		}
	}
	if p := problems(o); len(p) > 0 {
		t.Errorf("%q", p)
	}
}

func TestReserved(t *testing.T) {
	names := Reserved()
	if len(names) != 8 || !slices.IsSorted(names) {
		t.Errorf("reserved names %q", names)
	}
	names[0] = "spoilt"
	if err := nameable(meta.Root, "cache"); !errors.Is(err, meta.Busy) {
		t.Errorf("got %v", err)
	}
}
