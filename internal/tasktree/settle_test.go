package tasktree

import (
	"errors"
	"os"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

func TestInTree(t *testing.T) {
	tree := New(Config{Mount: "/mnt/x"})
	for _, c := range []struct{ text, cwd, want string }{
		{"f", "", "/f"}, {"f", "/a/b", "/a/b/f"}, {"../f", "/a/b", "/a/f"}, {"../../../f", "/a", "/f"}, {".", "/a", "/a"},
		{"/mnt/x", "/a", "/"}, {"/mnt/x/f/", "/a", "/f"}, {"/dos/f", "/a", "/f"}, {"/dos", "", "/"}, {"/mnt/x/../y", "", ""},
		{"/mnt/xy", "", ""}, {"/doss", "", ""}, {"/etc/passwd", "/a", ""}, {"/", "", ""},
	} {
		got, err := tree.inTree("near", c.text, c.cwd)
		if got != c.want || (c.want == "") != errors.Is(err, meta.Invalid) {
			t.Errorf("%s in %s is %q, %v; want %q", c.text, c.cwd, got, err, c.want)
		}
	}
}

func TestMay(t *testing.T) {
	o := task.Owner{UID: 7, GID: 8, Groups: []uint32{9}}
	for _, c := range []struct {
		uid, gid, mode, want uint32
		is                   bool
	}{
		{7, 0, 0o400, toRead, true}, {7, 0, 0o044, toRead, false}, {1, 8, 0o040, toRead, true}, {1, 9, 0o040, toRead, true},
		{1, 9, 0o404, toRead, false}, {1, 1, 0o004, toRead, true}, {1, 1, 0o440, toRead, false}, {1, 1, 0o001, toEnter, true},
	} {
		a := meta.Attr{UID: c.uid, GID: c.gid, Mode: c.mode}
		if may(o, a, c.want) != c.is {
			t.Errorf("%o of %d:%d, want %o: not %v", c.mode, c.uid, c.gid, c.want, c.is)
		}
		if !may(task.Owner{}, a, c.want) {
			t.Error("root may not")
		}
	}
}

func TestNearest(t *testing.T) {
	if got, want := nearest(map[string]int64{"a": 10, "b": 100, "c": 50, "d": 49, "e": 0, "f": 100}), []string{"b", "f", "c"}; !slices.Equal(got, want) {
		t.Errorf("nearest %q, want %q", got, want)
	}
	if got := nearest(nil); len(got) != 0 {
		t.Errorf("of nothing %q", got)
	}
}

// A process is asked who it is, and where it works.
func TestOwner(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	by := procfs.Caller{UID: 7, GID: 8, PID: uint32(os.Getpid())}
	o, cwd, err := New(Config{Mount: dir}).Owner(by)
	groups, _ := os.Getgroups()
	if err != nil || o.UID != 7 || o.GID != 8 || len(o.Groups) != len(groups) || cwd != "/dos" {
		t.Errorf("%+v, %q, %v", o, cwd, err)
	}
	if _, cwd, err := New(Config{Mount: dir + "/tasks"}).Owner(by); err != nil || cwd != "" {
		t.Errorf("outside of the tree it works in %q, %v", cwd, err)
	}
	if o, cwd, err := New(Config{Mount: dir}).Owner(procfs.Caller{UID: 7, GID: 8}); err != nil || cwd != "" || o.UID != 7 || o.Umask != 0o022 {
		t.Errorf("of a process that cannot be seen: %+v, %q, %v", o, cwd, err)
	}
}
