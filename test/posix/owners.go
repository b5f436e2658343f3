package posix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var owners = []test{
	{"chmod", chmod},
	{"permissions", permissions},
	{"chown", chown},
	{"set-id", setID},
	{"sticky", sticky},
	{"times", times},
	{"times-change", timesChange},
	{"xattrs", xattrs},
	{"statfs", statfs},
}

// Two users who are not root, and a group that the first is in.
const (
	alice  = 65531
	bob    = 65532
	common = 65530
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can act as other users")
	}
}

func chmod(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	put(t, path, nil)
	for _, mode := range []uint32{0, 0o777, 0o4711, 0o2710, 0o1600, 0o640} {
		ok(t, unix.Chmod(path, mode))
		if st := lstat(t, path); st.Mode != unix.S_IFREG|mode {
			t.Errorf("chmod %o: mode %o", mode, st.Mode)
		}
	}
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	ok(t, unix.Chmod(filepath.Join(dir, "d"), 0o1777))
	if st := lstat(t, filepath.Join(dir, "d")); st.Mode != unix.S_IFDIR|0o1777 {
		t.Errorf("chmod of a directory: mode %o", st.Mode)
	}
	refused(t, "chmod of nothing", unix.Chmod(filepath.Join(dir, "no"), 0o644), unix.ENOENT)
}

func permissions(t *testing.T, dir string) {
	needRoot(t)
	ok(t, os.Chmod(dir, 0o777))
	f := filepath.Join(dir, "f")
	ok(t, os.WriteFile(f, []byte("text"), 0o600))
	ok(t, os.Chown(f, alice, common))
	read := func() error { _, err := os.ReadFile(f); return err }
	write := func() error {
		w, err := os.OpenFile(f, os.O_WRONLY, 0)
		if err == nil {
			err = w.Close()
		}
		return err
	}
	run := func() error { return unix.Access(f, unix.X_OK) }
	for _, c := range []struct {
		mode                             uint32
		uid                              int
		groups                           []int
		canRead, canWrite, canExec, root bool
	}{
		{mode: 0o600, uid: alice, canRead: true, canWrite: true},
		{mode: 0o600, uid: bob},
		{mode: 0o640, uid: bob, groups: []int{common}, canRead: true},
		{mode: 0o060, uid: alice, groups: []int{common}}, // the owner's bits alone count for the owner
		{mode: 0o020, uid: bob, groups: []int{common}, canWrite: true},
		{mode: 0o606, uid: bob, canRead: true, canWrite: true},
		{mode: 0o606, uid: bob, groups: []int{common}},
		{mode: 0o111, uid: bob, canExec: true},
		{mode: 0, uid: alice},
	} {
		ok(t, unix.Chmod(f, c.mode))
		for _, try := range []struct {
			what string
			f    func() error
			can  bool
		}{{"read", read, c.canRead}, {"write", write, c.canWrite}, {"execute", run, c.canExec}} {
			err := As(c.uid, c.uid, c.groups, try.f)
			what := fmt.Sprintf("%s of mode %o by %d in %v", try.what, c.mode, c.uid, c.groups)
			if try.can && err != nil {
				t.Errorf("%s: %v", what, err)
			} else if !try.can {
				refused(t, what, err, unix.EACCES)
			}
		}
	}
	ok(t, unix.Chmod(f, 0))
	ok(t, read()) // root reads all the same

	// Directories: search, list, change.
	d := filepath.Join(dir, "d")
	ok(t, os.Mkdir(d, 0o755))
	put(t, filepath.Join(d, "x"), []byte("x"))
	asBob := func(f func() error) error { return As(bob, bob, nil, f) }
	refused(t, "create in 755", asBob(func() error { return os.WriteFile(filepath.Join(d, "y"), nil, 0o644) }), unix.EACCES)
	refused(t, "mkdir in 755", asBob(func() error { return os.Mkdir(filepath.Join(d, "y"), 0o755) }), unix.EACCES)
	refused(t, "unlink in 755", asBob(func() error { return unix.Unlink(filepath.Join(d, "x")) }), unix.EACCES)
	refused(t, "rename in 755", asBob(func() error { return unix.Rename(filepath.Join(d, "x"), filepath.Join(d, "y")) }), unix.EACCES)
	refused(t, "link into 755", asBob(func() error { return os.Symlink("x", filepath.Join(d, "y")) }), unix.EACCES)
	refused(t, "chmod of another's", asBob(func() error { return unix.Chmod(d, 0o777) }), unix.EPERM)
	refused(t, "times of another's", asBob(func() error { return os.Chtimes(d, time.Unix(1, 0), time.Unix(1, 0)) }), unix.EPERM)
	ok(t, os.Chmod(d, 0o711))
	_, err := os.ReadDir(d)
	ok(t, err)
	refused(t, "listing 711", asBob(func() error { _, err := os.ReadDir(d); return err }), unix.EACCES)
	ok(t, asBob(func() error { _, err := os.ReadFile(filepath.Join(d, "x")); return err }))
	ok(t, os.Chmod(d, 0o744))
	refused(t, "looking up in 744", asBob(func() error { _, err := os.Stat(filepath.Join(d, "x")); return err }), unix.EACCES)
	// What bob makes is bob's.
	made := filepath.Join(dir, "bobs")
	ok(t, asBob(func() error { return os.Mkdir(made, 0o700) }))
	if st := lstat(t, made); st.Uid != bob || st.Gid != bob {
		t.Errorf("made by %d: owner %d, group %d", bob, st.Uid, st.Gid)
	}
	// A file that its owner made read-only for himself is still writable
	// through the descriptor that made it.
	ok(t, asBob(func() error {
		fd, err := unix.Open(filepath.Join(made, "ro"), unix.O_CREAT|unix.O_RDWR, 0o400)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte("x"))
		return errors.Join(err, unix.Close(fd))
	}))
}

func chown(t *testing.T, dir string) {
	f := filepath.Join(dir, "f")
	put(t, f, nil)
	ok(t, os.Chown(f, -1, -1))
	needRoot(t)
	ok(t, os.Chown(f, alice, -1))
	ok(t, os.Chown(f, -1, bob))
	if st := lstat(t, f); st.Uid != alice || st.Gid != bob {
		t.Errorf("owner %d, group %d, want %d, %d", st.Uid, st.Gid, alice, bob)
	}
	ok(t, os.Symlink("f", filepath.Join(dir, "s")))
	ok(t, os.Lchown(filepath.Join(dir, "s"), bob, alice))
	if st := lstat(t, filepath.Join(dir, "s")); st.Uid != bob || st.Gid != alice {
		t.Errorf("symlink: owner %d, group %d, want %d, %d", st.Uid, st.Gid, bob, alice)
	}
	if st := lstat(t, f); st.Uid != alice {
		t.Errorf("lchown went through the symlink")
	}
	refused(t, "giving a file away", As(alice, alice, nil, func() error { return os.Chown(f, bob, -1) }), unix.EPERM)
	refused(t, "a group that one is not in", As(alice, alice, nil, func() error { return os.Chown(f, -1, common) }), unix.EPERM)
	ok(t, As(alice, alice, []int{common}, func() error { return os.Chown(f, -1, common) }))
	// A directory with set-group-id passes its group on.
	d := filepath.Join(dir, "d")
	ok(t, os.Mkdir(d, 0o777))
	ok(t, os.Chown(d, 0, common))
	ok(t, unix.Chmod(d, 0o2777))
	ok(t, As(alice, alice, nil, func() error {
		return errors.Join(os.WriteFile(filepath.Join(d, "f"), nil, 0o644), os.Mkdir(filepath.Join(d, "d"), 0o755))
	}))
	if st := lstat(t, filepath.Join(d, "f")); st.Gid != common {
		t.Errorf("file in a set-group-id directory: group %d, want %d", st.Gid, common)
	}
	if st := lstat(t, filepath.Join(d, "d")); st.Gid != common || st.Mode&unix.S_ISGID == 0 {
		t.Errorf("directory in a set-group-id directory: group %d, mode %o", st.Gid, st.Mode)
	}
}

// setID holds the set-id bits to vanishing where they would be a hole.
func setID(t *testing.T, dir string) {
	needRoot(t)
	ok(t, os.Chmod(dir, 0o777))
	f := filepath.Join(dir, "f")
	for what, change := range map[string]func() error{
		"write": func() error {
			w, err := os.OpenFile(f, os.O_WRONLY, 0)
			if err == nil {
				_, err = w.Write([]byte("x"))
				err = errors.Join(err, w.Close())
			}
			return err
		},
		"truncate": func() error { return unix.Truncate(f, 1) },
		"chown":    func() error { return os.Chown(f, -1, common) },
	} {
		ok(t, os.RemoveAll(f))
		put(t, f, []byte("program"))
		ok(t, os.Chown(f, alice, alice))
		ok(t, unix.Chmod(f, 0o6777))
		ok(t, As(alice, alice, []int{common}, change))
		if st := lstat(t, f); st.Mode&0o7777 != 0o777 {
			t.Errorf("%s by its owner left mode %o, want 777", what, st.Mode&0o7777)
		}
	}
}

func sticky(t *testing.T, dir string) {
	needRoot(t)
	d := filepath.Join(dir, "tmp")
	ok(t, os.Mkdir(d, 0o755))
	ok(t, unix.Chmod(d, 0o1777))
	f := filepath.Join(d, "f")
	ok(t, As(alice, alice, nil, func() error { return os.WriteFile(f, nil, 0o666) }))
	refused(t, "unlink of another's in a sticky directory", As(bob, bob, nil, func() error { return unix.Unlink(f) }), unix.EPERM, unix.EACCES)
	refused(t, "rename of another's in a sticky directory", As(bob, bob, nil, func() error { return unix.Rename(f, f+"2") }), unix.EPERM, unix.EACCES)
	ok(t, As(alice, alice, nil, func() error { return unix.Unlink(f) }))
}

func times(t *testing.T, dir string) {
	f := filepath.Join(dir, "f")
	put(t, f, []byte("x"))
	ok(t, os.Symlink("f", filepath.Join(dir, "s")))
	for _, path := range []string{f, dir, filepath.Join(dir, "s")} {
		for _, ts := range [][2]unix.Timespec{
			{{Sec: 1700000000, Nsec: 123456789}, {Sec: 1600000000, Nsec: 987654321}},
			{{Sec: 0, Nsec: 1}, {Sec: 1, Nsec: 999999999}},
			{{Sec: 4000000000, Nsec: 5}, {Sec: 4000000001, Nsec: 6}}, // beyond 2038
			{{Sec: -1000, Nsec: 7}, {Sec: -1, Nsec: 8}},              // before 1970
		} {
			ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts[:], unix.AT_SYMLINK_NOFOLLOW))
			if st := lstat(t, path); st.Atim != ts[0] || st.Mtim != ts[1] {
				t.Errorf("%s: set %v, got %v and %v", path, ts, st.Atim, st.Mtim)
			}
		}
	}
	before := lstat(t, f)
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
	after := lstat(t, f)
	if after.Atim != before.Atim || time.Since(time.Unix(after.Mtim.Unix())).Abs() > time.Minute {
		t.Errorf("UTIME_OMIT, UTIME_NOW: %v and %v became %v and %v", before.Atim, before.Mtim, after.Atim, after.Mtim)
	}
	// What write back does later may not undo what was set.
	w := open(t, f, os.O_WRONLY)
	_, err := w.Write(pattern(1, 100000))
	ok(t, err)
	set := []unix.Timespec{{Sec: 1500000000, Nsec: 1}, {Sec: 1500000001, Nsec: 2}}
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, f, set, 0))
	ok(t, w.Sync())
	ok(t, w.Close())
	if st := lstat(t, f); st.Mtim != set[1] {
		t.Errorf("mtime %v after the data was written back, want %v as set", st.Mtim, set[1])
	}
}

// timesChange holds each change to marking the times that it must.
func timesChange(t *testing.T, dir string) {
	f, d := filepath.Join(dir, "f"), filepath.Join(dir, "d")
	put(t, f, []byte("x"))
	ok(t, os.Mkdir(d, 0o755))
	put(t, filepath.Join(d, "old"), nil)
	w := open(t, f, os.O_RDWR)
	const none, c, m = 0, 1, 2 // ctime alone, mtime and ctime
	for _, change := range []struct {
		what string
		do   func() error
		f, d int
	}{
		{"write", func() error { _, err := w.WriteAt([]byte("y"), 3); return err }, m, none},
		{"truncate", func() error { return w.Truncate(100) }, m, none},
		{"chmod", func() error { return os.Chmod(f, 0o600) }, c, none},
		{"link", func() error { return os.Link(f, filepath.Join(d, "l")) }, c, m},
		{"unlink", func() error { return os.Remove(filepath.Join(d, "l")) }, c, m},
		{"create", func() error { return os.WriteFile(filepath.Join(d, "n"), nil, 0o644) }, none, m},
		{"rename", func() error { return unix.Rename(filepath.Join(d, "n"), filepath.Join(d, "n2")) }, none, m},
		{"mkdir", func() error { return os.Mkdir(filepath.Join(d, "sub"), 0o755) }, none, m},
		{"rmdir", func() error { return os.Remove(filepath.Join(d, "sub")) }, none, m},
		{"symlink", func() error { return os.Symlink("x", filepath.Join(d, "s")) }, none, m},
		{"setxattr", func() error { return ignore(unix.Setxattr(f, "user.t", []byte("1"), 0), unix.EOPNOTSUPP) }, c, none},
	} {
		past := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
		ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, f, past, 0))
		ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, d, past, 0))
		bf, bd := lstat(t, f), lstat(t, d)
		tick(t, dir)
		ok(t, change.do())
		af, ad := lstat(t, f), lstat(t, d)
		for _, x := range []struct {
			name          string
			before, after unix.Stat_t
			want          int
		}{{"file", bf, af, change.f}, {"directory", bd, ad, change.d}} {
			if changed := x.after.Mtim != x.before.Mtim; changed != (x.want == m) {
				t.Errorf("%s: the %s's mtime changed: %v", change.what, x.name, changed)
			}
			if changed := x.after.Ctim != x.before.Ctim; changed != (x.want != none) && change.what != "setxattr" {
				t.Errorf("%s: the %s's ctime changed: %v", change.what, x.name, changed)
			}
		}
	}
}

// tick returns when the file system's clock, which may be as coarse as the
// kernel's tick, has moved on.
func tick(t *testing.T, dir string) {
	t.Helper()
	var first unix.Timespec
	for i := 0; ; i++ {
		path := filepath.Join(dir, "tick")
		put(t, path, nil)
		st := lstat(t, path)
		ok(t, os.Remove(path))
		if i == 0 {
			first = st.Ctim
		} else if st.Ctim != first {
			return
		}
	}
}

func xattrs(t *testing.T, dir string) {
	f, d := filepath.Join(dir, "f"), filepath.Join(dir, "d")
	put(t, f, nil)
	ok(t, os.Mkdir(d, 0o755))
	if err := unix.Setxattr(f, "user.probe", nil, 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the file system has no user attributes")
	}
	ok(t, unix.Removexattr(f, "user.probe"))
	for _, path := range []string{f, d} {
		values := map[string][]byte{"user.a": []byte("1"), "user.empty": {}, "user.binary": pattern(1, 900), "user." + strings.Repeat("n", 250): []byte("long name")}
		for name, val := range values {
			ok(t, unix.Setxattr(path, name, val, 0))
		}
		for name, val := range values {
			got := make([]byte, 1000)
			n, err := unix.Getxattr(path, name, got)
			if err != nil || !bytes.Equal(got[:n], val) {
				t.Errorf("%s: got %d bytes, %v, want %d", name, n, err, len(val))
			}
			if n, err := unix.Getxattr(path, name, nil); n != len(val) || err != nil {
				t.Errorf("size of %s: got %d, %v, want %d", name, n, err, len(val))
			}
		}
		_, err := unix.Getxattr(path, "user.binary", make([]byte, 10))
		refused(t, "getxattr with little room", err, unix.ERANGE)
		_, err = unix.Listxattr(path, make([]byte, 3))
		refused(t, "listxattr with little room", err, unix.ERANGE)
		buf := make([]byte, 4096)
		n, err := unix.Listxattr(path, buf)
		ok(t, err)
		got := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
		for name := range values {
			if !slices.Contains(got, name) {
				t.Errorf("%s is not listed in %q", name, got)
			}
		}
		refused(t, "XATTR_CREATE of what is there", unix.Setxattr(path, "user.a", nil, unix.XATTR_CREATE), unix.EEXIST)
		refused(t, "XATTR_REPLACE of nothing", unix.Setxattr(path, "user.no", nil, unix.XATTR_REPLACE), unix.ENODATA)
		ok(t, unix.Setxattr(path, "user.a", []byte("other"), unix.XATTR_REPLACE))
		ok(t, unix.Removexattr(path, "user.a"))
		_, err = unix.Getxattr(path, "user.a", nil)
		refused(t, "getxattr of what was removed", err, unix.ENODATA)
		refused(t, "removexattr of nothing", unix.Removexattr(path, "user.a"), unix.ENODATA)
		refused(t, "a name without a class", unix.Setxattr(path, "bare", nil, 0), unix.EOPNOTSUPP)
	}
	// They go with the file and not with a copy of its name.
	ok(t, unix.Rename(f, f+"2"))
	if _, err := unix.Getxattr(f+"2", "user.binary", nil); err != nil {
		t.Errorf("after rename: %v", err)
	}
	put(t, f, nil)
	_, err := unix.Getxattr(f, "user.binary", nil)
	refused(t, "getxattr of a new file of an old name", err, unix.ENODATA)
	if os.Geteuid() == 0 {
		ok(t, unix.Setxattr(f, "trusted.t", []byte("root"), 0))
		ok(t, os.Chmod(f, 0o600))
		refused(t, "setxattr on another's file", As(bob, bob, nil, func() error { return unix.Setxattr(f, "user.x", nil, 0) }), unix.EACCES)
	}
}

func statfs(t *testing.T, dir string) {
	var st unix.Statfs_t
	ok(t, unix.Statfs(dir, &st))
	if st.Bsize <= 0 || st.Blocks == 0 || st.Bfree > st.Blocks || st.Bavail > st.Bfree || st.Ffree > st.Files || st.Namelen != 255 {
		t.Errorf("statfs makes no sense: %+v", st)
	}
}

// ignore is err unless it is the errno given.
func ignore(err error, errno syscall.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}
