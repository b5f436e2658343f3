package fuse

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseMountinfo(t *testing.T) {
	const text = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
bad line
40 36 0:52 / /my\040dos\134x rw - fuse.dos do\011s rw,user_id=0
41 36 0:53 / /bind shared:1 master:2 opt - tmpfs none rw
42 36 0:53 / /short - tmpfs
`
	got, err := parseMountinfo(strings.NewReader(text))
	want := []mounted{
		{"/mnt2", "98:0", "ext3", "/dev/root"},
		{`/my dos\x`, "0:52", "fuse.dos", "do\ts"},
		{"/bind", "0:53", "tmpfs", "none"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if m, ok, err := mountedAt("/proc"); err != nil || !ok || m.fstype != "proc" {
		t.Errorf("at /proc there is %+v, %v, %v", m, ok, err)
	}
	if m, ok, err := mountedAt(t.TempDir()); err != nil || ok {
		t.Errorf("where nothing is mounted there is %+v, %v, %v", m, ok, err)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw")
	f.Add(`40 36 0:52 / /my\040dos\134 rw - fuse.dos \777 \`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseMountinfo(strings.NewReader(text))
		for _, m := range all {
			if err == nil && (m.point == "" || m.fstype == "") {
				t.Errorf("%q gave %+v", text, m)
			}
		}
	})
}

func TestResolve(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must(t, os.Mkdir(base+"/real", 0o755))
	must(t, os.Symlink("real", base+"/link"))
	must(t, os.Symlink(base+"/nowhere", base+"/dangling"))
	for in, want := range map[string]string{
		base + "/real":        base + "/real",
		base + "/link":        base + "/real",
		base + "/link/x/y/":   base + "/real/x/y",
		base + "/new/a/../b":  base + "/new/b",
		base + "/./real/../n": base + "/n",
		"/":                   "/",
	} {
		if got, err := resolve(in); err != nil || got != want {
			t.Errorf("resolve(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	if got, err := resolve(base + "/dangling"); err == nil {
		t.Errorf("a link that leads nowhere became %q", got)
	}
	t.Chdir(base)
	if got, err := resolve("real"); err != nil || got != base+"/real" {
		t.Errorf("resolve(real) = %q, %v", got, err)
	}
}

// TestBadPoints walks the ways in which a mount point can be unfit. Nothing
// may be touched.
func TestBadPoints(t *testing.T) {
	needFuse(t)
	base := t.TempDir()
	must(t, os.WriteFile(base+"/file", nil, 0o644))
	must(t, os.MkdirAll(base+"/full/inside", 0o755))
	for point, want := range map[string]string{
		base + "/file":      "is not a directory",
		base + "/file/x":    "not a directory",
		base + "/full":      `is not empty (it holds "inside")`,
		"/proc":             "already mounted (proc, type proc); unmount it first: umount /proc",
		"/proc/1/nothing/x": "cannot be made",
		"/proc/new":         "cannot be made",
		"":                  "", // the working directory, which is full
	} {
		_, err := preparePoint(point, Options{}, slog.New(slog.DiscardHandler))
		switch {
		case err == nil:
			t.Errorf("%q was taken for a mount point", point)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v, want %q", point, err, want)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%q: more than a line: %v", point, err)
		case point != "" && !strings.Contains(err.Error(), point):
			t.Errorf("%q is not named: %v", point, err)
		}
	}
	if names, err := os.ReadDir(base); err != nil || len(names) != 2 {
		t.Errorf("afterwards there are %v, %v", names, err)
	}
}

func TestMadePoints(t *testing.T) {
	needFuse(t)
	base := t.TempDir()
	p, err := preparePoint(base+"/a/b/c", Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(base + "/a/b/c"); err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		t.Errorf("made: %v, %v", info, err)
	}
	must(t, os.WriteFile(base+"/a/mine", nil, 0o644))
	p.remove()
	if _, err := os.Stat(base + "/a/b"); !os.IsNotExist(err) {
		t.Errorf("what was made is still there: %v", err)
	}
	if _, err := os.Stat(base + "/a/mine"); err != nil {
		t.Errorf("what somebody put there is gone: %v", err)
	}
}

func TestUserAllowOther(t *testing.T) {
	conf := t.TempDir() + "/fuse.conf"
	for text, want := range map[string]bool{
		"#user_allow_other\n": false, "mount_max = 3\n user_allow_other \n": true, "user_allow_other": true, "": false,
	} {
		must(t, os.WriteFile(conf, []byte(text), 0o644))
		if got := userAllowOther(conf); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if userAllowOther(conf + "x") {
		t.Error("a missing file allows")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
