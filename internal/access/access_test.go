package access

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strings"
	"testing"

	"dos/meta"
)

func TestMay(t *testing.T) {
	u := User{UID: 7, GID: 8, Groups: []uint32{9}}
	for _, c := range []struct {
		uid, gid, mode, want uint32
		is                   bool
	}{
		{7, 0, 0o400, Read, true}, {7, 0, 0o044, Read, false}, {1, 8, 0o040, Read, true}, {1, 9, 0o040, Read, true},
		{1, 9, 0o404, Read, false}, {1, 1, 0o004, Read, true}, {1, 1, 0o440, Read, false}, {1, 1, 0o001, Enter, true},
		{1, 1, 0o004, Read | Write, false}, {1, 1, 0o006, Read | Write, true},
	} {
		a := meta.Attr{UID: c.uid, GID: c.gid, Mode: c.mode}
		if u.May(a, c.want) != c.is {
			t.Errorf("%o of %d:%d, want %o: not %v", c.mode, c.uid, c.gid, c.want, c.is)
		}
		if !(User{}).May(a, c.want) {
			t.Error("root may not")
		}
	}
}

func TestMayRemove(t *testing.T) {
	for _, c := range []struct {
		dirUID, dirMode, uid uint32
		is                   bool
	}{
		{1, 0o777, 1, true}, {1, 0o1777, 1, false}, {1, 0o1777, 7, true}, {7, 0o1777, 1, true}, {1, 0o776, 7, false}, {1, 0o775, 7, false},
	} {
		dir, file := meta.Attr{UID: c.dirUID, Mode: c.dirMode}, meta.Attr{UID: c.uid}
		if (User{UID: 7, GID: 7}).MayRemove(dir, file) != c.is {
			t.Errorf("a file of %d in a directory %o of %d: not %v", c.uid, c.dirMode, c.dirUID, c.is)
		}
		if !(User{}).MayRemove(dir, file) {
			t.Error("root may not")
		}
	}
}

// names is a tree: paths to modes and, of links, targets.
type names []struct {
	path   string
	mode   uint32
	target string
}

func (n names) Attr(_ context.Context, ino meta.Ino) (meta.Attr, error) {
	return meta.Attr{Ino: ino, Mode: n[ino-1].mode}, nil
}

func (n names) Lookup(ctx context.Context, parent meta.Ino, name string) (meta.Attr, error) {
	for i, e := range n {
		if e.path == n[parent-1].path+"/"+name {
			return n.Attr(ctx, meta.Ino(i+1))
		}
	}
	return meta.Attr{}, meta.NotExist
}

func (n names) Readlink(_ context.Context, ino meta.Ino) (string, error) { return n[ino-1].target, nil }

func TestFind(t *testing.T) {
	const dir, file, link = meta.TypeDir | 0o755, meta.TypeFile | 0o644, meta.TypeSymlink | 0o777
	tree := names{{"", dir, ""}, {"/a", dir, ""}, {"/a/f", file, ""}, {"/a/up", link, "../a/b"}, {"/a/b", dir, ""}, {"/a/b/g", file, ""},
		{"/abs", link, "/dos/a/b"}, {"/out", link, "/etc"}, {"/loop", link, "loop"}, {"/shut", meta.TypeDir | 0o700, ""}, {"/shut/x", file, ""}, {"/new", link, "a/none"}}
	w := Walker{Tree: tree, Absolute: func(target string) (string, error) {
		rest, ok := strings.CutPrefix(target, "/dos")
		if !ok {
			return "", meta.Invalid
		}
		return rest, nil
	}}
	for _, c := range []struct {
		path string
		last bool
		want string // the directory, the name and what it is
		err  error
	}{
		{"/", true, "  ", nil}, {"", true, "  ", nil}, {"/a/f", true, "/a f /a/f", nil}, {"a//./f", true, "/a f /a/f", nil}, {"/a/b/..", true, " a /a", nil},
		{"/../..", true, "  ", nil}, {"/a/up", true, "/a b /a/b", nil}, {"/a/up", false, "/a up /a/up", nil}, {"/a/up/", false, "/a up /a/up", nil},
		{"/a/up/g", false, "/a/b g /a/b/g", nil}, {"/abs/g", true, "/a/b g /a/b/g", nil}, {"/new", true, "/a none -", nil}, {"/new", false, " new /new", nil},
		{"/none", true, " none -", nil}, {"/none/x", true, "", meta.NotExist}, {"/a/f/x", true, "", meta.NotDir}, {"/a/f/.", true, "", meta.NotDir},
		{"/out/passwd", true, "", meta.Invalid}, {"/loop", true, "", meta.Invalid}, {"/tasks/1", true, "", meta.Invalid}, {"/a/tasks", true, "/a tasks -", nil},
		{"/shut/x", true, "", meta.Permission}, {"/shut", true, " shut /shut", nil},
	} {
		p, err := w.Find(t.Context(), User{UID: 7, GID: 7}, c.path, c.last)
		got := ""
		if err == nil {
			is := "-"
			if p.Exists() {
				is = tree[p.Attr.Ino-1].path
			}
			got = fmt.Sprint(tree[p.Dir.Ino-1].path, " ", p.Name, " ", is)
		}
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q, %v: %q, %v; want %q, %v", c.path, c.last, got, err, c.want, c.err)
		}
	}
	for path, want := range map[string]error{"/a/f": nil, "/none": meta.NotExist, "/shut": meta.Permission} {
		if _, err := w.Reach(t.Context(), User{UID: 7, GID: 7}, path, Read); !errors.Is(err, want) {
			t.Errorf("to read %s: %v, want %v", path, err, want)
		}
	}
}

func TestNamed(t *testing.T) {
	for name, uid := range map[string]uint32{"": 0, "root": 0, "0": 0, "4242421": 4242421} {
		if u, err := Named(name); err != nil || u.UID != uid || u.GID != uid {
			t.Errorf("%q is %+v, %v; want %d", name, u, err, uid)
		}
	}
	for _, name := range []string{"no-such-user", "-1", "4294967296"} {
		if u, err := Named(name); !errors.Is(err, meta.Permission) {
			t.Errorf("%q is %+v, %v", name, u, err)
		}
	}
	if me, err := user.Current(); err == nil {
		ids, _ := me.GroupIds()
		if u, err := Named(me.Username); err != nil || len(u.Groups) != len(ids) {
			t.Errorf("%q is %+v, %v; want groups %v", me.Username, u, err, ids)
		}
	}
}
