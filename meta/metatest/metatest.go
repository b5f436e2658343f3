// Package metatest checks that a metadata service keeps its promises, however
// it is reached: each request executed once and in order, the tree of files,
// sessions and members. What each operation does in every corner is tested
// where it is; this is what must also hold at the other end of a connection.
package metatest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/namespace"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/trust"
)

// Run checks the services that open returns, each empty; each subtest gets its own.
func Run(t *testing.T, open func(t *testing.T) client.Sender) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s client.Sender)
	}{
		{"tree", tree},
		{"rename", rename},
		{"data", data},
		{"large answers", largeAnswers},
		{"attributes", attributes},
		{"kept inodes", keptInodes},
		{"refusals", refusals},
		{"once only", onceOnly},
		{"ended session", endedSession},
		{"stripe IDs", stripeIDs},
		{"cluster", cluster},
		{"trust", trusted},
		{"concurrent", concurrent},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// begin makes the root directory and a session.
func begin(t *testing.T, s client.Sender) (client.Files, *client.Remote) {
	t.Helper()
	direct := client.Direct(s, 0)
	if _, err := (client.Files{Caller: direct}).Init(t.Context(), 0o755, 0, 0); err != nil {
		t.Fatalf("Init: %v", err)
	}
	info, err := client.Session{Caller: direct}.Open(t.Context(), "test", "here", 0)
	if err != nil {
		t.Fatalf("Open session: %v", err)
	}
	r := client.NewRemote(s, info.ID)
	return client.Files{Caller: r}, r
}

func file(mode uint32) meta.Node { return meta.Node{Mode: meta.TypeFile | mode, UID: 1, GID: 2} }

func dir() meta.Node { return meta.Node{Mode: meta.TypeDir | 0o755} }

func mustCreate(t *testing.T, f client.Files, parent meta.Ino, name string, node meta.Node) meta.Attr {
	t.Helper()
	attr, err := f.Create(t.Context(), parent, name, node)
	if err != nil {
		t.Fatalf("Create(%d, %q): %v", parent, name, err)
	}
	return attr
}

func wantKind(t *testing.T, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

func tree(t *testing.T, s client.Sender) {
	f, _ := begin(t, s)
	ctx := t.Context()
	d := mustCreate(t, f, meta.Root, "d", dir())
	a := mustCreate(t, f, d.Ino, "a", file(0o640))
	if a.Mode != meta.TypeFile|0o640 || a.Nlink != 1 || a.UID != 1 || a.GID != 2 || a.Mtime == 0 {
		t.Errorf("Create returned %+v", a)
	}
	if got, err := f.Lookup(ctx, d.Ino, "a"); err != nil || got != a {
		t.Errorf("Lookup = %+v, %v, want %+v", got, err, a)
	}
	if got, err := f.Attr(ctx, a.Ino); err != nil || got != a {
		t.Errorf("Attr = %+v, %v, want %+v", got, err, a)
	}
	l := mustCreate(t, f, d.Ino, "l", meta.Node{Mode: meta.TypeSymlink | 0o777, Target: "../a"})
	if got, err := f.Readlink(ctx, l.Ino); err != nil || got != "../a" {
		t.Errorf("Readlink = %q, %v", got, err)
	}
	if got, err := f.Link(ctx, a.Ino, d.Ino, "b"); err != nil || got.Nlink != 2 {
		t.Errorf("Link = %+v, %v, want 2 links", got, err)
	}
	if got, err := f.Parent(ctx, d.Ino); err != nil || got != meta.Root {
		t.Errorf("Parent = %d, %v, want the root", got, err)
	}
	var names []string
	after, rounds := "", 0
	for more := true; more; rounds++ {
		var list []meta.Entry
		var err error
		if list, more, err = f.Entries(ctx, d.Ino, after, 2, true); err != nil || len(list) == 0 {
			t.Fatalf("Entries after %q = %v, %v", after, list, err)
		}
		for _, e := range list {
			if e.Attr == nil || e.Attr.Ino != e.Ino || e.Attr.Type() != e.Type {
				t.Errorf("entry %+v does not match its attributes %+v", e, e.Attr)
			}
			names = append(names, e.Name)
		}
		after = names[len(names)-1]
	}
	if want := []string{"a", "b", "l"}; !slices.Equal(names, want) {
		t.Errorf("Entries = %q, want %q", names, want)
	}
	_, err := f.Rmdir(ctx, meta.Root, "d", 0)
	wantKind(t, "Rmdir of a full directory", err, meta.NotEmpty)
	for _, name := range names {
		if _, err := f.Unlink(ctx, d.Ino, name, 0); err != nil {
			t.Errorf("Unlink(%q): %v", name, err)
		}
	}
	if _, err := f.Rmdir(ctx, meta.Root, "d", 0); err != nil {
		t.Errorf("Rmdir: %v", err)
	}
	_, err = f.Lookup(ctx, meta.Root, "d")
	wantKind(t, "Lookup of what was removed", err, meta.NotExist)
	usage, err := f.Usage(ctx)
	if err != nil || usage.Inodes != 1 {
		t.Errorf("Usage = %+v, %v, want the root alone", usage, err)
	}
}

func rename(t *testing.T, s client.Sender) {
	f, _ := begin(t, s)
	ctx := t.Context()
	d := mustCreate(t, f, meta.Root, "d", dir())
	e := mustCreate(t, f, d.Ino, "e", dir())
	a := mustCreate(t, f, meta.Root, "a", file(0o600))
	b := mustCreate(t, f, d.Ino, "b", file(0o600))
	err := f.Rename(ctx, meta.Root, "a", d.Ino, "b", meta.RenameNoReplace, 0)
	wantKind(t, "Rename onto a name with NOREPLACE", err, meta.Exist)
	wantKind(t, "Rename of a directory below itself", f.Rename(ctx, meta.Root, "d", e.Ino, "x", 0, 0), meta.Invalid)
	if err := f.Rename(ctx, meta.Root, "a", d.Ino, "b", meta.RenameExchange, 0); err != nil {
		t.Errorf("Rename with EXCHANGE: %v", err)
	}
	if got, err := f.Lookup(ctx, meta.Root, "a"); err != nil || got.Ino != b.Ino {
		t.Errorf("after the exchange, a is %d, %v, want %d", got.Ino, err, b.Ino)
	}
	if err := f.Rename(ctx, d.Ino, "b", meta.Root, "a", 0, 0); err != nil {
		t.Errorf("Rename over a file: %v", err)
	}
	if got, err := f.Lookup(ctx, meta.Root, "a"); err != nil || got.Ino != a.Ino {
		t.Errorf("after the rename, a is %d, %v, want %d", got.Ino, err, a.Ino)
	}
	_, err = f.Attr(ctx, b.Ino)
	wantKind(t, "Attr of what was renamed over", err, meta.NotExist)
}

func data(t *testing.T, s client.Sender) {
	f, r := begin(t, s)
	ctx := t.Context()
	a := mustCreate(t, f, meta.Root, "a", file(0o600))
	first, err := client.Session{Caller: r}.Reserve(ctx, 16)
	if err != nil {
		t.Fatalf("Reserve: %v", err)
	}
	stripe := chunk.Stripe{ID: first, Len: 200 << 10, Code: chunk.Code{K: 2, M: 1}, Stores: []chunk.StoreID{1, 2, 3}}
	in := bytes.Repeat([]byte("x"), 100)
	attr, err := f.Write(ctx, meta.Write{
		Ino: a.Ino,
		Extents: []meta.Extent{
			{Off: 0, Len: 200 << 10, Stripe: first},
			{Off: 300 << 10, Len: 100, Inline: in},
		},
		Stripes: []chunk.Stripe{stripe},
		Size:    400 << 10,
		Low:     first + 1,
	})
	if err != nil || attr.Size != 400<<10 || attr.Data == a.Data {
		t.Fatalf("Write = %+v, %v", attr, err)
	}
	l, err := f.Layout(ctx, a.Ino, 0, 400<<10)
	if err != nil || len(l.Extents) != 2 || len(l.Stripes) != 1 || l.End != 400<<10 || l.Attr != attr {
		t.Fatalf("Layout = %+v, %v", l, err)
	}
	if got := l.Stripes[0]; got.ID != first || got.Len != stripe.Len || got.Code != stripe.Code || !slices.Equal(got.Stores, stripe.Stores) {
		t.Errorf("stripe %+v, want %+v", got, stripe)
	}
	if !bytes.Equal(l.Extents[1].Inline, in) {
		t.Errorf("inline bytes %q, want %q", l.Extents[1].Inline, in)
	}
	care := client.Stripes{Caller: r}
	if done, err := care.Move(ctx, namespace.Move{Stripe: first, Index: 1, From: 2, To: 9}, namespace.Move{Stripe: first, Index: 0, From: 7, To: 8}); err != nil || !slices.Equal(done, []bool{true, false}) {
		t.Errorf("Move = %v, %v, want the first made", done, err)
	}
	if list, err := care.Stripe(ctx, first); err != nil || len(list) != 1 || !slices.Equal(list[0].Stripe.Stores, []chunk.StoreID{1, 9, 3}) || list[0].Owner != a.Ino {
		t.Errorf("Stripe = %+v, %v", list, err)
	}
	size := int64(0)
	if attr, err := f.SetAttr(ctx, a.Ino, meta.SetAttr{Size: &size}); err != nil || attr.Size != 0 || attr.Bytes != 0 {
		t.Errorf("SetAttr of the size = %+v, %v", attr, err)
	}
	dead, more, err := care.Dead(ctx, 1<<62, 10)
	if err != nil || more || len(dead) != 1 || dead[0].Stripe.ID != first {
		t.Fatalf("Dead = %+v, %v, %v, want stripe %d", dead, more, err, first)
	}
	if err := care.Bury(ctx, first); err != nil {
		t.Errorf("Bury: %v", err)
	}
	if list, err := care.Stripe(ctx, first); err != nil || len(list) != 0 {
		t.Errorf("Stripe after Bury = %+v, %v", list, err)
	}
	if check, err := care.Check(ctx); err != nil || len(check.Problems) != 0 || check.Counts.Files != 1 {
		t.Errorf("Check = %+v, %v", check, err)
	}
}

// largeAnswers has more in one directory than fits an answer of any size.
func largeAnswers(t *testing.T, s client.Sender) {
	f, _ := begin(t, s)
	const n, xattrs = 40, 20
	val := bytes.Repeat([]byte("v"), 48<<10)
	for i := range n {
		a := mustCreate(t, f, meta.Root, fmt.Sprintf("%03d%s", i, strings.Repeat("n", 250)), file(0o600))
		if i < xattrs {
			if err := f.SetXattr(t.Context(), a.Ino, "user.v", val, 0); err != nil {
				t.Fatalf("SetXattr: %v", err)
			}
			if got, err := f.Xattr(t.Context(), a.Ino, "user.v"); err != nil || !bytes.Equal(got, val) {
				t.Errorf("Xattr = %d bytes, %v, want %d", len(got), err, len(val))
			}
		}
	}
	count, after := 0, ""
	for more := true; more; {
		var list []meta.Entry
		var err error
		if list, more, err = f.Entries(t.Context(), meta.Root, after, 1<<20, true); err != nil || len(list) == 0 {
			t.Fatalf("Entries = %d, %v", len(list), err)
		}
		count += len(list)
		after = list[len(list)-1].Name
	}
	if count != n {
		t.Errorf("%d entries, want %d", count, n)
	}
}

func attributes(t *testing.T, s client.Sender) {
	f, _ := begin(t, s)
	ctx := t.Context()
	a := mustCreate(t, f, meta.Root, "a", file(0o600))
	mode, uid, mtime := uint32(0o4751), uint32(77), meta.Time(123456789)
	got, err := f.SetAttr(ctx, a.Ino, meta.SetAttr{Mode: &mode, UID: &uid, Mtime: &mtime})
	if err != nil || got.Mode != meta.TypeFile|mode || got.UID != uid || got.GID != a.GID || got.Mtime != mtime {
		t.Errorf("SetAttr = %+v, %v", got, err)
	}
	wantKind(t, "SetXattr that only replaces", f.SetXattr(ctx, a.Ino, "user.x", []byte("1"), 2), meta.NoAttr)
	for _, name := range []string{"user.y", "user.x"} {
		if err := f.SetXattr(ctx, a.Ino, name, []byte(name), 1); err != nil {
			t.Errorf("SetXattr(%s): %v", name, err)
		}
	}
	if names, err := f.Xattrs(ctx, a.Ino); err != nil || !slices.Equal(names, []string{"user.x", "user.y"}) {
		t.Errorf("Xattrs = %q, %v", names, err)
	}
	if err := f.RemoveXattr(ctx, a.Ino, "user.x"); err != nil {
		t.Errorf("RemoveXattr: %v", err)
	}
	_, err = f.Xattr(ctx, a.Ino, "user.x")
	wantKind(t, "Xattr of what was removed", err, meta.NoAttr)
}

func keptInodes(t *testing.T, s client.Sender) {
	f, r := begin(t, s)
	ctx := t.Context()
	for i := range 2 {
		a := mustCreate(t, f, meta.Root, "a", file(0o600))
		if got, err := f.Unlink(ctx, meta.Root, "a", a.Ino); err != nil || got.Nlink != 0 {
			t.Fatalf("Unlink = %+v, %v, want no links", got, err)
		}
		if _, err := f.Attr(ctx, a.Ino); err != nil {
			t.Errorf("Attr of a kept inode: %v", err)
		}
		if i == 0 {
			if err := f.Drop(ctx, a.Ino, a.Ino); err != nil {
				t.Errorf("Drop: %v", err)
			}
		} else if err := (client.Session{Caller: client.Direct(s, 0)}).End(ctx, r.Session()); err != nil {
			t.Errorf("End: %v", err)
		}
		_, err := client.Files{Caller: client.Direct(s, 0)}.Attr(ctx, a.Ino)
		wantKind(t, "Attr of an inode that nobody keeps", err, meta.NotExist)
	}
}

// refusals arrive with their kind and with what was said about them.
func refusals(t *testing.T, s client.Sender) {
	f, _ := begin(t, s)
	ctx := t.Context()
	a := mustCreate(t, f, meta.Root, "a", file(0o600))
	_, err := f.Create(ctx, meta.Root, "a", file(0o600))
	wantKind(t, "Create of a name that is taken", err, meta.Exist)
	_, err = f.Create(ctx, a.Ino, "x", file(0o600))
	wantKind(t, "Create in a file", err, meta.NotDir)
	_, err = f.Create(ctx, meta.Root, strings.Repeat("x", meta.NameMax+1), file(0o600))
	wantKind(t, "Create of a long name", err, meta.NameTooLong)
	_, err = f.Lookup(ctx, meta.Root, "b")
	wantKind(t, "Lookup of what is not there", err, meta.NotExist)
	_, err = f.Readlink(ctx, a.Ino)
	wantKind(t, "Readlink of a file", err, meta.Invalid)
	_, _, err = f.Entries(ctx, a.Ino, "", 10, false)
	wantKind(t, "Entries of a file", err, meta.NotDir)
	_, err = s.Do(ctx, state.Command{Op: 0xffff})
	wantKind(t, "an unknown operation", err, meta.Unsupported)
	reply, err := s.Do(ctx, state.Command{Op: namespace.OpCreate, Body: []byte{0xff, 0x00}})
	if err != nil || reply.Kind != meta.Invalid {
		t.Errorf("a command that cannot be read = %+v, %v, want Invalid", reply, err)
	}
	_, err = client.Session{Caller: client.Direct(s, 0)}.Open(ctx, strings.Repeat("n", session.TextMax+1), "", 0)
	if err == nil || !strings.Contains(err.Error(), "256") {
		t.Errorf("Open with a long name = %v, want an error that says how long", err)
	}
}

func onceOnly(t *testing.T, s client.Sender) {
	_, r := begin(t, s)
	ctx := t.Context()
	create := func(slot uint16, seq uint64, name string) state.Reply {
		t.Helper()
		reply, err := s.Do(ctx, state.Command{
			Op: namespace.OpCreate, Session: r.Session(), Slot: slot, Seq: seq,
			Body: state.Marshal(namespace.Create{Parent: meta.Root, Name: name, Node: file(0o600)}),
		})
		if err != nil {
			t.Fatalf("create %q: %v", name, err)
		}
		return reply
	}
	first := create(7, 1, "a")
	if first.Kind != 0 {
		t.Fatalf("create: %v", first.Err())
	}
	for range 3 {
		if again := create(7, 1, "a"); again.Kind != 0 || !bytes.Equal(again.Body, first.Body) {
			t.Errorf("the same request again = %+v, want %+v", again, first)
		}
	}
	if r := create(8, 1, "a"); r.Kind != meta.Exist {
		t.Errorf("the same in another slot = %+v, want Exist", r)
	}
	if r := create(8, 1, "b"); r.Kind != meta.Exist {
		t.Errorf("a number that was used = %+v, want the kept refusal", r)
	}
	if r := create(7, 3, "c"); r.Kind != meta.Gap {
		t.Errorf("a number that skips one = %+v, want Gap", r)
	}
	if r := create(7, 2, "c"); r.Kind != 0 {
		t.Errorf("the next number = %+v", r)
	}
	if r := create(state.Slots, 1, "d"); r.Kind != meta.Invalid {
		t.Errorf("a slot that does not exist = %+v, want Invalid", r)
	}
}

func endedSession(t *testing.T, s client.Sender) {
	f, r := begin(t, s)
	ctx := t.Context()
	direct := client.Session{Caller: client.Direct(s, 0)}
	if err := direct.End(ctx, r.Session()); err != nil {
		t.Fatalf("End: %v", err)
	}
	if err := direct.End(ctx, r.Session()); err != nil {
		t.Errorf("End of what has ended: %v", err)
	}
	_, err := f.Create(ctx, meta.Root, "late", file(0o600))
	wantKind(t, "Create in an ended session", err, meta.Expired)
	_, err = client.Files{Caller: client.Direct(s, r.Session())}.Create(ctx, meta.Root, "late", file(0o600))
	wantKind(t, "Create in an ended session, sent once", err, meta.Expired)
	_, err = f.Lookup(ctx, meta.Root, "late")
	wantKind(t, "Lookup of what it was to make", err, meta.NotExist)
}

func stripeIDs(t *testing.T, s client.Sender) {
	_, r := begin(t, s)
	_, other := begin(t, s)
	ctx := t.Context()
	last := chunk.StripeID(0)
	for _, c := range []client.Caller{r, other, r} {
		first, err := client.Session{Caller: c}.Reserve(ctx, 10)
		if err != nil || first <= last {
			t.Fatalf("Reserve = %d, %v after %d", first, err, last)
		}
		last = first + 9
	}
	direct := client.Session{Caller: client.Direct(s, 0)}
	if list, err := direct.List(ctx); err != nil || len(list) != 2 || list[0].ID != r.Session() || len(list[0].Ranges) == 0 {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := (client.Session{Caller: r}).Advance(ctx, last); err != nil {
		t.Errorf("Advance: %v", err)
	}
	if info, err := direct.Info(ctx, r.Session()); err != nil || info.Low != last {
		t.Errorf("Info = %+v, %v, want low-water mark %d", info, err, last)
	}
	if settled, err := direct.Settled(ctx, last-1, last); err != nil || !slices.Equal(settled, []bool{true, false}) {
		t.Errorf("Settled below and at the mark = %v, %v", settled, err)
	}
}

func cluster(t *testing.T, s client.Sender) {
	m := client.Members{Caller: client.Direct(s, 0)}
	ctx := t.Context()
	code := chunk.Code{K: 4, M: 2}
	wantKind(t, "Init of nothing", m.Init(ctx, members.ClusterID{}, code), meta.Invalid)
	id := members.ClusterID{1, 2, 3}
	for range 2 {
		if err := m.Init(ctx, id, code); err != nil {
			t.Fatalf("Init: %v", err)
		}
	}
	wantKind(t, "Init with another code", m.Init(ctx, id, chunk.Code{K: 2, M: 1}), meta.Conflict)
	if err := m.PutNode(ctx, members.Node{Name: "n", Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatalf("PutNode: %v", err)
	}
	for i := range 6 {
		st, err := m.PutStore(ctx, members.Store{Node: "n", Ordinal: uint16(i), Incarnation: 1})
		if err != nil || st.ID != chunk.StoreID(i+1) {
			t.Fatalf("PutStore = %+v, %v, want store %d", st, err, i+1)
		}
	}
	now, err := m.Arrange(ctx)
	if err != nil || len(now.Groups) != chunk.Groups || len(now.Stores) != 6 || len(now.Nodes) != 1 || now.Cluster != id || now.Code != code {
		t.Fatalf("Arrange = %d groups, %d stores, %d nodes, %v", len(now.Groups), len(now.Stores), len(now.Nodes), err)
	}
	for i, g := range now.Groups {
		if len(g.Members) != 6 {
			t.Fatalf("group %d has the members %v", i, g.Members)
		}
	}
	if same, err := m.Map(ctx, now.Epoch); err != nil || same.Epoch != now.Epoch || same.Groups != nil {
		t.Errorf("Map since now = %+v, %v, want the epoch alone", same, err)
	}
	wantKind(t, "SetGroups at an old epoch", m.SetGroups(ctx, now.Epoch-1, nil), meta.Conflict)
	wantKind(t, "RemoveStore of a member", m.RemoveStore(ctx, 1), meta.Busy)
}

func trusted(t *testing.T, s client.Sender) {
	tr := client.Trust{Caller: client.Direct(s, 0)}
	ctx := t.Context()
	if a, err := tr.Authorities(ctx, 0); err != nil || a.Epoch != 0 {
		t.Fatalf("Authorities = %+v, %v, want none", a, err)
	}
	later := meta.At(time.Now().Add(time.Hour))
	token := trust.Token{Hash: "h", Node: true, Rights: 4, Name: "n", Expires: later}
	for _, hash := range []string{"h", "i"} {
		token.Hash = hash
		if err := tr.PutToken(ctx, token); err != nil {
			t.Fatalf("PutToken: %v", err)
		}
	}
	if err := tr.DeleteToken(ctx, "i"); err != nil {
		t.Errorf("DeleteToken: %v", err)
	}
	join := trust.Join{Hash: "h", Node: true, Name: "n", Rights: 4, Cert: trust.Cert{Serial: "1", Issuer: "c", Until: later}}
	if err := tr.Join(ctx, join); err != nil {
		t.Fatalf("Join: %v", err)
	}
	if used, err := tr.Token(ctx, "h"); err != nil || used.By != "n" || used.Serial != "1" {
		t.Errorf("Token = %+v, %v", used, err)
	}
	_, err := tr.Token(ctx, "i")
	wantKind(t, "Token that was deleted", err, meta.NotExist)
	if list, err := tr.Tokens(ctx); err != nil || len(list) != 1 {
		t.Errorf("Tokens = %+v, %v", list, err)
	}
	if err := tr.Renew(ctx, trust.Renew{Node: true, Name: "n", Shown: "1", Cert: trust.Cert{Serial: "2", Issuer: "c", Until: later}}); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if err := tr.Confirm(ctx, true, "n", "2"); err != nil {
		t.Errorf("Confirm: %v", err)
	}
	if err := tr.Prune(ctx); err != nil {
		t.Errorf("Prune: %v", err)
	}
	if list, err := tr.Identities(ctx); err != nil || len(list) != 1 || list[0].InUse != "2" || len(list[0].Certs) != 2 {
		t.Errorf("Identities = %+v, %v", list, err)
	}
	wantKind(t, "Revoke of nobody", tr.Revoke(ctx, false, "n"), meta.NotExist)
	wantKind(t, "Revoke without an authority", tr.Revoke(ctx, true, "n"), meta.NotExist)
}

// concurrent has more callers than there are slots.
func concurrent(t *testing.T, s client.Sender) {
	f, _ := begin(t, s)
	const callers, each = 2 * state.Slots, 2
	var wg sync.WaitGroup
	inos := make([]meta.Ino, callers*each)
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				attr, err := f.Create(t.Context(), meta.Root, fmt.Sprintf("%d.%d", c, i), file(0o600))
				if err != nil {
					t.Errorf("Create: %v", err)
				}
				inos[c*each+i] = attr.Ino
				if got, err := f.Attr(t.Context(), attr.Ino); err != nil || got.Ino != attr.Ino {
					t.Errorf("Attr(%d) = %+v, %v", attr.Ino, got, err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(inos)
	if n := len(slices.Compact(inos)); n != callers*each {
		t.Errorf("%d different inodes, want %d", n, callers*each)
	}
	list, more, err := f.Entries(t.Context(), meta.Root, "", namespace.ListMax, false)
	if err != nil || more || len(list) != callers*each {
		t.Errorf("%d entries, more %v, %v, want %d", len(list), more, err, callers*each)
	}
}
