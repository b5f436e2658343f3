package namespace_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/lease"
	ns "dos/meta/namespace"
	"dos/meta/session"
	"dos/meta/state"
)

// as makes the world speak for a session.
func (w *world) as(s meta.SessionID) *world {
	w.me = s
	return w
}

// mount opens a session that opens files.
func (w *world) mount() meta.SessionID {
	w.t.Helper()
	me := w.me
	defer func() { w.me = me }()
	return must[session.Info](w.as(0), session.OpOpen, session.Open{Name: "mount", Files: true}).ID
}

func (w *world) end(s meta.SessionID) {
	w.t.Helper()
	me := w.me
	defer func() { w.me = me }()
	must[session.Ended](w.as(0), session.OpEnd, session.End{ID: s})
}

// leased makes a file with a lease for its maker.
func (w *world) leased(name string) meta.Ino {
	w.t.Helper()
	return must[meta.Attr](w, ns.OpCreate, ns.Create{Parent: meta.Root, Name: name, Node: meta.Node{Mode: meta.TypeFile | 0o755, Lease: true}}).Ino
}

// What another session has X of is closed, and what it has S of is not changed, but
// for moving its bytes.
func TestLeased(t *testing.T) {
	w := newWorld(t)
	a, b := w.mount(), w.mount()
	w.as(a)
	ino, free := w.leased("f"), w.file("free")
	if _, err := w.write(meta.Write{Ino: ino, Extents: []meta.Extent{{Len: 1, Inline: []byte("x")}}, Size: 1, Held: true}); err != nil {
		t.Fatal(err)
	}
	data := w.attr(ino).Data
	size := int64(0)
	cases := []struct {
		what   string
		op     state.Op
		req    any
		underX meta.Kind // how it ends for others while a session has X
		underS meta.Kind // and while it has S
	}{
		{"lookup", ns.OpLookup, ns.Name{Parent: meta.Root, Name: "f"}, meta.Leased, 0},
		{"attr", ns.OpAttr, ns.Inode{Ino: ino}, meta.Leased, 0},
		{"layout", ns.OpLayout, ns.Layout{Ino: ino, Size: 1}, meta.Leased, 0},
		{"stored layout", ns.OpLayout, ns.Layout{Ino: ino, Size: 1, Stored: true}, 0, 0},
		{"xattr", ns.OpXattr, ns.XattrName{Ino: ino, Name: "user.a"}, meta.Leased, meta.NoAttr},
		{"xattrs", ns.OpXattrs, ns.Inode{Ino: ino}, meta.Leased, 0},
		{"setattr", ns.OpSetAttr, ns.SetAttr{Ino: ino, Set: meta.SetAttr{Size: &size}}, meta.Leased, meta.Leased},
		{"write", ns.OpWrite, meta.Write{Ino: ino, Size: 9}, meta.Leased, meta.Leased},
		{"held write", ns.OpWrite, meta.Write{Ino: ino, Size: 9, Held: true}, meta.Expired, meta.Expired},
		{"setxattr", ns.OpSetXattr, ns.SetXattr{Ino: ino, Name: "user.a"}, meta.Leased, meta.Leased},
		{"removexattr", ns.OpRemoveXattr, ns.XattrName{Ino: ino, Name: "user.a"}, meta.Leased, meta.Leased},
		{"link", ns.OpLink, ns.Link{Ino: ino, Parent: meta.Root, Name: "g"}, meta.Leased, meta.Leased},
		{"unlink", ns.OpUnlink, ns.Unlink{Parent: meta.Root, Name: "f"}, meta.Leased, meta.Leased},
		{"rename", ns.OpRename, ns.Rename{Parent: meta.Root, Name: "f", NewParent: meta.Root, NewName: "g"}, meta.Leased, meta.Leased},
		{"rename over", ns.OpRename, ns.Rename{Parent: meta.Root, Name: "free", NewParent: meta.Root, NewName: "f"}, meta.Leased, meta.Leased},
		{"exchange", ns.OpRename, ns.Rename{Parent: meta.Root, Name: "free", NewParent: meta.Root, NewName: "f", Flags: meta.RenameExchange}, meta.Leased, meta.Leased},
		{"swap", ns.OpSwap, meta.Swap{Ino: ino, Data: data, Done: true}, 0, 0},
		{"entries", ns.OpEntries, ns.Entries{Dir: meta.Root, Limit: 9, Attrs: true}, 0, 0},
	}
	refused := func(kind func(i int) meta.Kind) {
		t.Helper()
		for i, tc := range cases {
			_, err := try[any](w.as(b), tc.op, tc.req)
			if want := kind(i); want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", tc.what, err, want)
			}
		}
		w.as(a)
	}
	must[any](w, lease.OpTake, lease.Take{Ino: ino, Shared: true})
	refused(func(i int) meta.Kind { return cases[i].underS })
	must[any](w.as(b), lease.OpTake, lease.Take{Ino: ino, Shared: true}) // both
	refused(func(i int) meta.Kind { return cases[i].underS })
	w.as(a).attr(ino)
	must[any](w.as(b), lease.OpGive, lease.Give{Inos: []meta.Ino{ino}})
	must[any](w.as(a), ns.OpSetAttr, ns.SetAttr{Ino: ino, Set: meta.SetAttr{Mode: new(uint32)}}) // one's own S is in nobody's way
	must[any](w, lease.OpTake, lease.Take{Ino: ino})
	refused(func(i int) meta.Kind { return cases[i].underX })
	w.as(b)
	for _, e := range must[ns.EntriesReply](w, ns.OpEntries, ns.Entries{Dir: meta.Root, Limit: 9, Attrs: true}).Entries {
		if (e.Attr == nil) != (e.Ino == ino) {
			t.Errorf("entry %q has attributes %v", e.Name, e.Attr)
		}
	}
	w.as(a)
	w.attr(ino)
	for _, bad := range []ns.Create{
		{Parent: meta.Root, Name: "d", Node: meta.Node{Mode: meta.TypeDir, Lease: true}},
	} {
		if _, err := try[meta.Attr](w, ns.OpCreate, bad); !errors.Is(err, meta.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	// The write gives the lease back.
	if _, err := w.write(meta.Write{Ino: ino, Size: 9, Held: true, Give: true}); err != nil {
		t.Fatal(err)
	}
	if got := w.as(b).attr(ino); got.Size != 9 {
		t.Errorf("size %d after the lease was given back", got.Size)
	}
	if _, err := w.as(a).write(meta.Write{Ino: ino, Size: 10, Held: true}); !errors.Is(err, meta.Expired) {
		t.Errorf("a write under a lease that was given back: %v", err)
	}
	// The lease of what is gone is gone, and that of a session with it.
	must[any](w, lease.OpTake, lease.Take{Ino: ino})
	must[any](w, ns.OpUnlink, ns.Unlink{Parent: meta.Root, Name: "f"})
	must[any](w, ns.OpDrop, ns.Drop{Inos: []meta.Ino{ino}})
	must[any](w.as(b), ns.OpDrop, ns.Drop{Inos: []meta.Ino{ino}})
	if s := lease.Holder(w.store, ino); s != 0 {
		t.Errorf("session %d holds what is gone", s)
	}
	must[any](w.as(a), lease.OpTake, lease.Take{Ino: free})
	w.end(a)
	w.as(b).attr(free)
	w.check()
}

func (w *world) asked() []meta.Ino {
	w.t.Helper()
	return must[ns.AskedReply](w, ns.OpAsked, ns.Asked{Limit: 100}).Inos
}

// there reports whether an inode still exists.
func (w *world) there(ino meta.Ino) bool {
	_, err := try[meta.Attr](w, ns.OpAttr, ns.Inode{Ino: ino})
	return err == nil
}

// A file that lost its last name stays until every session that opens files
// has said that it does not use it.
func TestAsked(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.mount(), w.mount(), w.mount()
	w.as(a)
	var inos []meta.Ino
	for i := range 6 {
		inos = append(inos, w.file(fmt.Sprint(i)))
	}
	unlink := func(i int, keep meta.Ino) {
		t.Helper()
		must[any](w.as(a), ns.OpUnlink, ns.Unlink{Parent: meta.Root, Name: fmt.Sprint(i), Keep: keep})
		w.check()
	}
	drop := func(s meta.SessionID, inos ...meta.Ino) {
		t.Helper()
		must[any](w.as(s), ns.OpDrop, ns.Drop{Inos: inos})
		w.check()
	}
	unlink(0, 0)
	for s, want := range map[meta.SessionID][]meta.Ino{a: nil, b: inos[:1], c: inos[:1]} {
		if got := w.as(s).asked(); !slices.Equal(got, want) {
			t.Errorf("session %d is asked about %v, want %v", s, got, want)
		}
	}
	drop(b, inos[0])
	drop(b, inos[0])
	if !w.there(inos[0]) {
		t.Error("gone before everybody dropped it")
	}
	drop(c, inos[0])
	if w.there(inos[0]) {
		t.Error("still there after everybody dropped it")
	}

	unlink(1, inos[1]) // a keeps it
	must[any](w.as(b), ns.OpDrop, ns.Drop{Keep: inos[1:3]})
	w.check()
	if got := w.asked(); len(got) != 0 {
		t.Errorf("asked again: %v", got)
	}
	drop(a, inos[1])
	drop(c, inos[1])
	if !w.there(inos[1]) {
		t.Error("gone although b keeps it")
	}
	if attr := w.attr(inos[1]); attr.Nlink != 0 {
		t.Errorf("%d links", attr.Nlink)
	}
	drop(b, inos[1])
	must[any](w.as(b), ns.OpDrop, ns.Drop{Keep: inos[1:2]}) // too late: nothing to keep
	w.check()
	if w.there(inos[1]) {
		t.Error("still there")
	}

	// A session's end is its answer; a later session is not asked.
	unlink(2, 0)
	w.end(b)
	w.check()
	d := w.mount()
	if got := w.as(d).asked(); len(got) != 0 {
		t.Errorf("a new session is asked about %v", got)
	}
	w.end(c)
	if w.there(inos[2]) {
		t.Error("still there after those who were asked have ended")
	}

	// What is renamed over goes the same way; what is no file goes at once.
	must[any](w.as(a), ns.OpRename, ns.Rename{Parent: meta.Root, Name: "3", NewParent: meta.Root, NewName: "4"})
	if got := w.as(d).asked(); !slices.Equal(got, inos[4:5]) {
		t.Errorf("asked about %v, want %d", got, inos[4])
	}
	dir := must[meta.Attr](w, ns.OpCreate, ns.Create{Parent: meta.Root, Name: "dir", Node: meta.Node{Mode: meta.TypeDir}}).Ino
	must[any](w, ns.OpRmdir, ns.Unlink{Parent: meta.Root, Name: "dir"})
	if w.there(dir) {
		t.Error("a removed directory is still there")
	}
	w.end(d)
	w.end(a)
	if w.there(inos[4]) {
		t.Error("still there after all have ended")
	}
	w.check()
}
