package namespace

import (
	"strings"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// full returns a store with rows of every kind, and what they are of.
func full(t *testing.T) (s *state.Overlay, dir, file, orphan meta.Ino) {
	t.Helper()
	m := new(state.Machine)
	session.Register(m, Release)
	Register(m)
	s = state.NewOverlay(nil)
	now := int64(1e18)
	var me meta.SessionID
	do := func(op state.Op, req, resp any) {
		t.Helper()
		now += 1e9
		reply := m.Apply(s, state.Command{Op: op, Time: now, Session: me, Body: state.Marshal(req)})
		if err := reply.Err(); err != nil {
			t.Fatal(err)
		}
		state.MustUnmarshal(reply.Body, resp)
	}
	var info session.Info
	var ids session.Range
	var a meta.Attr
	do(OpInit, Init{Mode: 0o755}, &a)
	do(session.OpOpen, session.Open{}, &info)
	me = info.ID
	do(session.OpReserve, session.Reserve{N: 10}, &ids)
	do(OpCreate, Create{Parent: meta.Root, Name: "d", Node: meta.Node{Mode: meta.TypeDir | 0o755}}, &a)
	dir = a.Ino
	do(OpCreate, Create{Parent: dir, Name: "f", Node: meta.Node{Mode: meta.TypeFile | 0o644}}, &a)
	file = a.Ino
	do(OpCreate, Create{Parent: dir, Name: "e", Node: meta.Node{Mode: meta.TypeDir | 0o755}}, &a)
	do(OpCreate, Create{Parent: dir, Name: "s", Node: meta.Node{Mode: meta.TypeSymlink, Target: "f"}}, &a)
	do(OpSetXattr, SetXattr{Ino: file, Name: "user.a", Val: []byte("x")}, new(none))
	stripe := func(id chunk.StripeID) chunk.Stripe {
		return chunk.Stripe{ID: id, Len: 1000, Code: chunk.Code{K: 1, M: 2}, Stores: []chunk.StoreID{1, 2, 3}}
	}
	do(OpWrite, meta.Write{Ino: file, Extents: []meta.Extent{
		{Off: 0, Len: 1000, Stripe: ids.First}, {Off: 5000, Len: 1000, Stripe: ids.First + 1}, {Off: 7000, Len: 3, Inline: []byte("abc")},
	}, Stripes: []chunk.Stripe{stripe(ids.First), stripe(ids.First + 1)}}, &a)
	do(OpWrite, meta.Write{Ino: file, Punch: []meta.Range{{Off: 5000, Len: 1000}}}, &a)
	do(OpCreate, Create{Parent: dir, Name: "o", Node: meta.Node{Mode: meta.TypeFile | 0o644}}, &a)
	orphan = a.Ino
	do(OpUnlink, Unlink{Parent: dir, Name: "o", Keep: orphan}, &a)
	do(OpCreate, Create{Parent: dir, Name: "many", Node: meta.Node{Mode: meta.TypeFile | 0o644}}, &a)
	var list []meta.Extent
	for i := range int64(cutNow + 20) {
		list = append(list, meta.Extent{Off: 2 * i, Len: 1, Inline: []byte{1}})
	}
	do(OpWrite, meta.Write{Ino: a.Ino, Extents: list}, &a)
	do(OpWrite, meta.Write{Ino: a.Ino, Punch: []meta.Range{{Off: 10, Len: 1 << 20}}, Extents: []meta.Extent{{Off: 1 << 10, Len: 1, Inline: []byte{1}}}}, &a)
	return s, dir, file, orphan
}

func problems(r state.Reader) (list []string) {
	Check(r, func(p string) { list = append(list, p) })
	return list
}

// TestCheckRows takes away each row in turn, spoils it, and copies it to a
// place where no row should be: Check sees it.
func TestCheckRows(t *testing.T) {
	s, _, _, _ := full(t)
	if p := problems(s); len(p) > 0 {
		t.Fatalf("a good tree: %q", p)
	}
	kinds := map[byte]int{}
	type row struct{ key, val []byte }
	var rows []row
	for k, v := range s.Scan([]byte("3"), nil) {
		// The many extents are all alike.
		if kinds[k[0]]++; k[0] != 'x' || kinds['x'] < 9 {
			rows = append(rows, row{k, v})
		}
	}
	for _, kind := range "idxasgopfu" {
		if kinds[byte(kind)] == 0 {
			t.Errorf("no row %c", kind)
		}
	}
	for _, r := range rows {
		seen := func(what string, change func(*state.Overlay)) {
			t.Helper()
			o := state.NewOverlay(s)
			change(o)
			if len(problems(o)) == 0 {
				t.Errorf("%s row %s %x: not seen", what, r.key[:1], r.key[1:])
			}
		}
		if r.key[0] != 'f' { // one candidate less is no damage
			seen("missing", func(o *state.Overlay) { o.Delete(r.key) })
		}
		if r.key[0] != 'a' { // any value of an attribute is one
			seen("spoilt", func(o *state.Overlay) { o.Set(r.key, []byte{0xff, 1}) })
		}
		if len(r.key) > 1 {
			seen("cut off", func(o *state.Overlay) { o.Set(r.key[:1], r.val) })
		}
		seen("too long", func(o *state.Overlay) { o.Set(append(append([]byte{}, r.key...), "/x"...), r.val) })
		if len(r.key) > 1 {
			other := append([]byte{}, r.key...)
			other[7] ^= 0x40 // in the first number
			seen("copied", func(o *state.Overlay) { o.Set(other, r.val) })
		}
	}
}

// TestCheckValues changes what rows say.
func TestCheckValues(t *testing.T) {
	s, dir, file, orphan := full(t)
	in := func(ino meta.Ino, change func(*inode)) func(*state.Overlay) {
		return func(o *state.Overlay) {
			row, ok := load[inode](o, inodeKey(ino))
			if !ok {
				t.Fatalf("no inode %d", ino)
			}
			change(&row)
			o.Set(inodeKey(ino), state.Marshal(row))
		}
	}
	str := func(change func(*StripeInfo)) func(*state.Overlay) {
		return func(o *state.Overlay) {
			row, _ := load[StripeInfo](o, stripeKey(1))
			change(&row)
			o.Set(stripeKey(1), state.Marshal(row))
		}
	}
	ext := func(change func(*extentRow)) func(*state.Overlay) {
		return func(o *state.Overlay) {
			row, ok := load[extentRow](o, extentKey(file, 1000))
			if !ok {
				t.Fatal("no extent")
			}
			change(&row)
			o.Set(extentKey(file, 1000), state.Marshal(row))
		}
	}
	sum := func(change func(*totals)) func(*state.Overlay) {
		return func(o *state.Overlay) {
			row, _ := load[totals](o, totalsKey)
			change(&row)
			o.Set(totalsKey, state.Marshal(row))
		}
	}
	entry := func(key []byte, d dentry) func(*state.Overlay) {
		return func(o *state.Overlay) { o.Set(key, state.Marshal(d)) }
	}
	var sub meta.Ino = file + 1
	tests := []struct {
		name   string
		change func(*state.Overlay)
		says   string
	}{
		{"links of a file", in(file, func(in *inode) { in.Attr.Nlink++ }), "links"},
		{"links of a directory", in(dir, func(in *inode) { in.Attr.Nlink-- }), "links"},
		{"entries", in(dir, func(in *inode) { in.Entries++ }), "entries"},
		{"parent", in(sub, func(in *inode) { in.Parent = meta.Root }), "parent"},
		{"a cycle", func(o *state.Overlay) {
			in(dir, func(in *inode) { in.Parent = sub })(o)
			o.Delete(dentryKey(meta.Root, "d"))
			entry(dentryKey(sub, "d"), dentry{dir, meta.TypeDir})(o)
			in(meta.Root, func(in *inode) { in.Entries--; in.Attr.Nlink-- })(o)
			in(sub, func(in *inode) { in.Entries++; in.Attr.Nlink++ })(o)
		}, "below the root"},
		{"type", in(file, func(in *inode) { in.Attr.Mode = meta.TypeFIFO }), "type"},
		{"no type", in(file, func(in *inode) { in.Attr.Mode = 0 }), "mode"},
		{"number", in(file, func(in *inode) { in.Attr.Ino++ }), "its row says"},
		{"size", in(file, func(in *inode) { in.Attr.Size = 10 }), "reaches"},
		{"negative size", in(orphan, func(in *inode) { in.Attr.Size = -1 }), "size"},
		{"target", in(sub+1, func(in *inode) { in.Target = "other" }), "symlink"},
		{"target of a file", in(file, func(in *inode) { in.Target = "other" }), "target"},
		{"bytes", in(file, func(in *inode) { in.Attr.Bytes++ }), "bytes"},
		{"inline", in(file, func(in *inode) { in.Inline++ }), "inline"},
		{"extents", in(file, func(in *inode) { in.Extents++ }), "extents"},
		{"stripes", in(file, func(in *inode) { in.Stripes++ }), "stripes"},
		{"attributes", in(file, func(in *inode) { in.Xattrs++ }), "attributes"},
		{"names of attributes", in(file, func(in *inode) { in.XattrBytes++ }), "attribute names"},
		{"cut without a queue", in(file, func(in *inode) { in.Gen = 1; in.Cuts = []cut{{0, 1, 1}} }), "purge queue"},
		{"orphan with a link", in(orphan, func(in *inode) { in.Attr.Nlink = 1 }), "keeps"},
		{"orphan of two", func(o *state.Overlay) {
			o.Set(orphanKey(2, orphan), nil)
		}, "further keepers"},
		{"orphan of an ended session", func(o *state.Overlay) {
			o.Delete(orphanKey(1, orphan))
			o.Set(orphanKey(7, orphan), nil)
		}, "ended"},
		{"live bytes", str(func(s *StripeInfo) { s.Live-- }), "live bytes"},
		{"died", str(func(s *StripeInfo) { s.Died = 1 }), "died"},
		{"owner", str(func(s *StripeInfo) { s.Owner = orphan }), "of inode"},
		{"stores", str(func(s *StripeInfo) { s.Stripe.Stores = s.Stripe.Stores[1:] }), "stores"},
		{"code", str(func(s *StripeInfo) { s.Stripe.Code.K = 0 }), "code"},
		{"stripe length", str(func(s *StripeInfo) { s.Stripe.Len = 999 }), "up to byte"},
		{"stripe number", str(func(s *StripeInfo) { s.Stripe.ID = 9 }), "its row says"},
		{"extent length", ext(func(e *extentRow) { e.Len-- }), "live bytes"},
		{"extent before the file", ext(func(e *extentRow) { e.Len++ }), "extent of"},
		{"extent's stripe", ext(func(e *extentRow) { e.Stripe = 9 }), "no row"},
		{"extent's offset", ext(func(e *extentRow) { e.At = 1 }), "up to byte"},
		{"extent's generation", ext(func(e *extentRow) { e.Gen = 1 }), "generation"},
		{"stripe and inline", ext(func(e *extentRow) { e.Inline = []byte("x") }), "inline"},
		{"overlap", func(o *state.Overlay) {
			o.Set(extentKey(file, 1001), state.Marshal(extentRow{Inline: []byte("xx")}))
		}, "overlaps"},
		{"reserved name", entry(dentryKey(meta.Root, "locks"), dentry{file, meta.TypeFile}), "reserved"},
		{"bad name", entry(dentryKey(dir, "a/b"), dentry{file, meta.TypeFile}), "invalid"},
		{"second name of a directory", entry(dentryKey(dir, "again"), dentry{sub, meta.TypeDir}), "names"},
		{"name in a file", entry(dentryKey(file, "x"), dentry{file, meta.TypeFile}), "no directory"},
		{"name of nothing", entry(dentryKey(dir, "x"), dentry{99, meta.TypeFile}), "does not exist"},
		{"next inode", sum(func(u *totals) { u.Next-- }), "next inode"},
		{"inodes", sum(func(u *totals) { u.Inodes-- }), "inodes"},
		{"all bytes", sum(func(u *totals) { u.Bytes-- }), "bytes"},
		{"fold of a directory", func(o *state.Overlay) { o.Set(foldKey(dir), state.Marshal(foldRow{Reason: Small})) }, "no file"},
		{"fold without a reason", func(o *state.Overlay) { o.Set(foldKey(file), state.Marshal(foldRow{})) }, "reason"},
		{"no root", func(o *state.Overlay) { o.Delete(inodeKey(meta.Root)) }, "no root"},
	}
	for _, tt := range tests {
		o := state.NewOverlay(s)
		tt.change(o)
		if got := strings.Join(problems(o), "\n"); !strings.Contains(got, tt.says) {
			t.Errorf("%s: got %q, want %q in it", tt.name, got, tt.says)
		}
	}
	m := new(state.Machine)
	Register(m)
	o := state.NewOverlay(s)
	in(file, func(in *inode) { in.Attr.Nlink++ })(o)
	var reply CheckReply
	state.MustUnmarshal(m.Answer(o, state.Command{Op: OpCheck, Body: state.Marshal(none{})}).Body, &reply)
	if len(reply.Problems) != 1 || reply.Counts.Dirs != 3 {
		t.Errorf("the query: %+v", reply)
	}
}
