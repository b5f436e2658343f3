package posix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var renames = []test{
	{"rename", renameMatrix},
	{"rename-dirs", renameDirs},
	{"rename-flags", renameFlags},
	{"rename-atomic", renameAtomic},
}

// things are what can stand at either end of a rename.
var things = map[string]func(path string) error{
	"none": func(string) error { return nil },
	"file": func(p string) error { return os.WriteFile(p, []byte(filepath.Base(p)), 0o644) },
	"link": func(p string) error { return os.Symlink(filepath.Base(p), p) },
	"dir":  func(p string) error { return os.Mkdir(p, 0o755) },
	"full": func(p string) error { return os.MkdirAll(filepath.Join(p, "inside"), 0o755) },
}

func renameMatrix(t *testing.T, dir string) {
	for _, c := range []struct {
		from, to string
		want     []syscall.Errno // nil: it works
	}{
		{"file", "none", nil}, {"link", "none", nil}, {"dir", "none", nil}, {"full", "none", nil},
		{"file", "file", nil}, {"file", "link", nil}, {"link", "file", nil}, {"link", "link", nil},
		{"dir", "dir", nil}, {"full", "dir", nil},
		{"dir", "full", []syscall.Errno{unix.ENOTEMPTY, unix.EEXIST}},
		{"full", "full", []syscall.Errno{unix.ENOTEMPTY, unix.EEXIST}},
		{"dir", "file", []syscall.Errno{unix.ENOTDIR}}, {"full", "link", []syscall.Errno{unix.ENOTDIR}},
		{"file", "dir", []syscall.Errno{unix.EISDIR}}, {"link", "full", []syscall.Errno{unix.EISDIR}},
		{"none", "none", []syscall.Errno{unix.ENOENT}}, {"none", "file", []syscall.Errno{unix.ENOENT}},
	} {
		for _, across := range []bool{false, true} {
			what := fmt.Sprintf("rename %s to %s, across directories: %v", c.from, c.to, across)
			place, err := os.MkdirTemp(dir, "")
			ok(t, err)
			from, to := filepath.Join(place, "from"), filepath.Join(place, "to")
			if across {
				ok(t, os.Mkdir(filepath.Join(place, "other"), 0o755))
				to = filepath.Join(place, "other", "to")
			}
			ok(t, things[c.from](from))
			ok(t, things[c.to](to))
			var before, after unix.Stat_t
			errBefore := unix.Lstat(from, &before)
			err = unix.Rename(from, to)
			if c.want != nil {
				refused(t, what, err, c.want...)
				if got := unix.Lstat(from, &after); !errors.Is(got, errBefore) || after.Ino != before.Ino {
					t.Errorf("%s: refused, and yet the source changed: %v", what, got)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			refused(t, what+": stat of the old name", unix.Lstat(from, &after), unix.ENOENT)
			if st := lstat(t, to); st.Ino != before.Ino || st.Mode != before.Mode || st.Nlink != before.Nlink {
				t.Errorf("%s: inode %d mode %o links %d became %d %o %d", what, before.Ino, before.Mode, before.Nlink, st.Ino, st.Mode, st.Nlink)
			}
		}
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, a, []byte("x"))
	ok(t, os.Link(a, b))
	ok(t, unix.Rename(a, b)) // two names of one inode: nothing happens
	if st := lstat(t, a); st.Nlink != 2 {
		t.Errorf("rename between two names of one file: %d links, want 2", st.Nlink)
	}
	ok(t, unix.Rename(a, a))
}

func renameDirs(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ok(t, os.MkdirAll(filepath.Join(a, "d/e"), 0o755))
	ok(t, os.Mkdir(b, 0o755))
	put(t, filepath.Join(a, "d/e/f"), []byte("moved along"))
	refused(t, "rename into itself", unix.Rename(a, filepath.Join(a, "d/x")), unix.EINVAL)
	refused(t, "rename of a parent over its child", unix.Rename(a, filepath.Join(a, "d")), unix.EINVAL)
	refused(t, "rename of a child over its parent", unix.Rename(filepath.Join(a, "d"), a), unix.ENOTEMPTY, unix.EEXIST)
	refused(t, "rename of .", unix.Rename(a+"/.", filepath.Join(dir, "x")), unix.EBUSY, unix.EINVAL)
	ok(t, unix.Rename(filepath.Join(a, "d"), filepath.Join(b, "d")))
	contains(t, filepath.Join(b, "d/e/f"), []byte("moved along"))
	for path, links := range map[string]uint64{a: 2, b: 3, filepath.Join(b, "d"): 3} {
		if st := lstat(t, path); uint64(st.Nlink) != links {
			t.Errorf("%s: %d links, want %d", path, st.Nlink, links)
		}
	}
	if up, want := lstat(t, filepath.Join(b, "d/..")), lstat(t, b); up.Ino != want.Ino {
		t.Errorf("..: inode %d, want %d", up.Ino, want.Ino)
	}
	ok(t, os.Mkdir(filepath.Join(a, "d"), 0o755))
	ok(t, unix.Rename(filepath.Join(b, "d"), filepath.Join(a, "d"))) // over an empty directory
	for path, links := range map[string]uint64{a: 3, b: 2} {
		if st := lstat(t, path); uint64(st.Nlink) != links {
			t.Errorf("%s: %d links, want %d", path, st.Nlink, links)
		}
	}
}

func renameFlags(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	renameat2 := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
	}
	put(t, a, []byte("a"))
	put(t, b, []byte("b"))
	err := renameat2(a, b, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("the file system has no RENAME_NOREPLACE")
	}
	refused(t, "RENAME_NOREPLACE", err, unix.EEXIST)
	ok(t, renameat2(a, filepath.Join(dir, "c"), unix.RENAME_NOREPLACE))
	ok(t, renameat2(filepath.Join(dir, "c"), b, unix.RENAME_EXCHANGE))
	contains(t, b, []byte("a"))
	contains(t, filepath.Join(dir, "c"), []byte("b"))
	refused(t, "RENAME_EXCHANGE with nothing", renameat2(b, filepath.Join(dir, "no"), unix.RENAME_EXCHANGE), unix.ENOENT)

	// A directory and a file trade places, and parents count their links.
	d := filepath.Join(dir, "d")
	ok(t, os.MkdirAll(filepath.Join(d, "sub"), 0o755))
	ok(t, renameat2(filepath.Join(d, "sub"), b, unix.RENAME_EXCHANGE))
	contains(t, filepath.Join(d, "sub"), []byte("a"))
	if st := lstat(t, d); st.Nlink != 2 {
		t.Errorf("after a directory left by exchange: %d links, want 2", st.Nlink)
	}
	if st := lstat(t, dir); st.Nlink != 4 {
		t.Errorf("after a directory came by exchange: %d links, want 4", st.Nlink)
	}
}

// renameAtomic reads a name that is renamed over all the time: it always has
// one of the contents, whole.
func renameAtomic(t *testing.T, dir string) {
	const rounds = 100
	path := filepath.Join(dir, "f")
	contents := func(i int) []byte { return pattern(uint64(i), 5000) }
	put(t, path, contents(0))
	done := make(chan error)
	go func() {
		for i := range rounds {
			if err := errors.Join(os.WriteFile(path+".tmp", contents(i), 0o644), unix.Rename(path+".tmp", path)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for at := 0; ; {
		select {
		case err := <-done:
			ok(t, err)
			contains(t, path, contents(rounds-1))
			return
		default:
		}
		got, err := os.ReadFile(path)
		if err != nil {
			<-done
			t.Fatalf("the name vanished: %v", err)
		}
		for at < rounds && string(got) != string(contents(at)) {
			at++
		}
		if at == rounds {
			<-done
			t.Fatalf("read %d bytes that were never renamed here, or went back in time", len(got))
		}
	}
}
