package tasktree

import (
	"errors"
	"os"
	"slices"
	"testing"

	"dos/meta"
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
