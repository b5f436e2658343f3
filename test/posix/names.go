package posix

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var names = []test{
	{"dirs", dirs},
	{"names", allNames},
	{"symlinks", symlinks},
	{"hard-links", hardLinks},
	{"readdir", readdir},
	{"readdir-changing", readdirChanging},
	{"rmdir-open", rmdirOpen},
	{"deep", deep},
	{"parallel", parallel},
}

func dirs(t *testing.T, dir string) {
	d := filepath.Join(dir, "d")
	ok(t, os.Mkdir(d, 0o755))
	refused(t, "mkdir of what is there", os.Mkdir(d, 0o755), unix.EEXIST)
	refused(t, "mkdir below nothing", os.Mkdir(filepath.Join(dir, "no/x"), 0o755), unix.ENOENT)
	for i := range 3 {
		ok(t, os.Mkdir(filepath.Join(d, fmt.Sprint(i)), 0o755))
	}
	put(t, filepath.Join(d, "f"), nil)
	refused(t, "mkdir below a file", os.Mkdir(filepath.Join(d, "f/x"), 0o755), unix.ENOTDIR)
	if st := lstat(t, d); st.Nlink != 5 {
		t.Errorf("a directory with three directories has %d links, want 5", st.Nlink)
	}
	refused(t, "rmdir of a full directory", unix.Rmdir(d), unix.ENOTEMPTY, unix.EEXIST)
	refused(t, "unlink of a directory", unix.Unlink(d), unix.EISDIR, unix.EPERM)
	refused(t, "rmdir of a file", unix.Rmdir(filepath.Join(d, "f")), unix.ENOTDIR)
	refused(t, "rmdir of .", unix.Rmdir(d+"/."), unix.EINVAL)
	refused(t, "rmdir of ..", unix.Rmdir(d+"/0/.."), unix.ENOTEMPTY)
	ok(t, unix.Rmdir(filepath.Join(d, "2")))
	if st := lstat(t, d); st.Nlink != 4 {
		t.Errorf("a directory with two directories has %d links, want 4", st.Nlink)
	}
	up, here := lstat(t, d+"/0/.."), lstat(t, d)
	if up.Ino != here.Ino {
		t.Errorf("d/0/.. is inode %d, d is %d", up.Ino, here.Ino)
	}
}

func allNames(t *testing.T, dir string) {
	long := strings.Repeat("n", 255)
	for _, name := range []string{long, "a b", "-", "\n", "ünïcödé", "\xff\xfe", "\\", "...", ".hidden", "*?[", strings.Repeat("ä", 127)} {
		path := filepath.Join(dir, name)
		put(t, path, []byte(name))
		contains(t, path, []byte(name))
		if got, err := list(dir); err != nil || !slices.Equal(got, []string{name}) {
			t.Errorf("listing of %q: %q, %v", name, got, err)
		}
		ok(t, os.Remove(path))
	}
	tooLong := filepath.Join(dir, long+"n")
	refused(t, "a name of 256 bytes", os.Mkdir(tooLong, 0o755), unix.ENAMETOOLONG)
	_, err := os.Stat(tooLong)
	refused(t, "looking up a name of 256 bytes", err, unix.ENAMETOOLONG)
	// Names that differ only in case are two.
	put(t, filepath.Join(dir, "case"), []byte("lower"))
	put(t, filepath.Join(dir, "CASE"), []byte("upper"))
	contains(t, filepath.Join(dir, "case"), []byte("lower"))
}

func symlinks(t *testing.T, dir string) {
	for _, target := range []string{"f", "/nowhere", "../x", strings.Repeat("t/", 2000), "\xff", "a b"} {
		path := filepath.Join(dir, "link")
		ok(t, os.Symlink(target, path))
		got, err := os.Readlink(path)
		if got != target || err != nil {
			t.Errorf("readlink: got %q, %v, want %q", got, err, target)
		}
		if st := lstat(t, path); st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != int64(len(target)) {
			t.Errorf("lstat of a link to %d bytes: mode %o, size %d", len(target), st.Mode, st.Size)
		}
		refused(t, "symlink over what is there", os.Symlink("x", path), unix.EEXIST)
		ok(t, os.Remove(path))
	}
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	ok(t, os.Symlink("d", filepath.Join(dir, "to-d")))
	put(t, filepath.Join(dir, "to-d/f"), []byte("through"))
	contains(t, filepath.Join(dir, "d/f"), []byte("through"))
	ok(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	_, err := os.Open(filepath.Join(dir, "loop"))
	refused(t, "opening a loop", err, unix.ELOOP)
	_, err = unix.Open(filepath.Join(dir, "to-d"), unix.O_NOFOLLOW|unix.O_RDONLY, 0)
	refused(t, "O_NOFOLLOW", err, unix.ELOOP)
	_, err = os.Readlink(filepath.Join(dir, "d"))
	refused(t, "readlink of a directory", err, unix.EINVAL)
}

func hardLinks(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, a, []byte("one"))
	ok(t, os.Link(a, b))
	put(t, b, []byte("two!"))
	contains(t, a, []byte("two!"))
	sa, sb := lstat(t, a), lstat(t, b)
	if sa.Ino != sb.Ino || sa.Nlink != 2 || sb.Nlink != 2 {
		t.Errorf("linked: inodes %d and %d, links %d and %d", sa.Ino, sb.Ino, sa.Nlink, sb.Nlink)
	}
	refused(t, "link over what is there", os.Link(a, b), unix.EEXIST)
	refused(t, "link of a directory", os.Link(dir, filepath.Join(dir, "x")), unix.EPERM)
	refused(t, "link of nothing", os.Link(filepath.Join(dir, "no"), filepath.Join(dir, "x")), unix.ENOENT)
	ok(t, os.Remove(a))
	if st := lstat(t, b); st.Nlink != 1 {
		t.Errorf("one of two names removed: %d links", st.Nlink)
	}
	contains(t, b, []byte("two!"))
	ok(t, os.Symlink("b", filepath.Join(dir, "s")))
	ok(t, os.Link(filepath.Join(dir, "s"), filepath.Join(dir, "s2"))) // of the symlink itself
	if st := lstat(t, filepath.Join(dir, "s2")); st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Nlink != 2 {
		t.Errorf("link of a symlink: mode %o, links %d", st.Mode, st.Nlink)
	}
}

func readdir(t *testing.T, dir string) {
	const n = 1500
	var want []string
	for i := range n {
		name := fmt.Sprintf("%04d-%s", i, strings.Repeat("x", i%50))
		put(t, filepath.Join(dir, name), nil)
		want = append(want, name)
	}
	got, err := list(dir)
	ok(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("listed %d of %d names", len(got), n)
	}
	// Again from the start, and on from the middle, on one descriptor.
	d := open(t, dir, os.O_RDONLY)
	first, err := d.Readdirnames(100)
	ok(t, err)
	_, err = d.Seek(0, io.SeekStart)
	ok(t, err)
	again, err := d.Readdirnames(-1)
	ok(t, err)
	if len(again) != n || !slices.Equal(first, again[:100]) {
		t.Errorf("after rewinding: %d names, the first %d differ: %v", len(again), len(first), !slices.Equal(first, again[:min(100, len(again))]))
	}
	buf := make([]byte, 4096)
	_, err = unix.Seek(int(d.Fd()), 0, io.SeekStart)
	ok(t, err)
	_, err = unix.Getdents(int(d.Fd()), buf)
	ok(t, err)
	cookie, err := unix.Seek(int(d.Fd()), 0, io.SeekCurrent)
	ok(t, err)
	rest := func() (names []string) {
		for {
			k, err := unix.Getdents(int(d.Fd()), buf)
			ok(t, err)
			if k == 0 {
				return names
			}
			_, _, names = unix.ParseDirent(buf[:k], -1, names)
		}
	}
	a := rest()
	_, err = unix.Seek(int(d.Fd()), cookie, io.SeekStart)
	ok(t, err)
	if b := rest(); len(a) == 0 || !slices.Equal(a, b) {
		t.Errorf("from a saved position: %d names, then %d", len(a), len(b))
	}
}

// readdirChanging lists a directory while names come and go in it: what stays
// is listed exactly once.
func readdirChanging(t *testing.T, dir string) {
	const stay = 800
	var want []string
	for i := range stay {
		name := fmt.Sprintf("stay-%04d", i)
		put(t, filepath.Join(dir, name), nil)
		want = append(want, name)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var churn error
	wg.Go(func() {
		for i := 0; churn == nil; i++ {
			select {
			case <-stop:
				return
			default:
			}
			path := filepath.Join(dir, fmt.Sprintf("go-%04d", i%100))
			f, err := os.Create(path)
			if err == nil {
				err = errors.Join(f.Close(), unix.Rename(path, path+".renamed"), os.Remove(path+".renamed"))
			}
			churn = err
		}
	})
	for round := range 5 {
		d := open(t, dir, os.O_RDONLY)
		var got []string
		for {
			names, err := d.Readdirnames(37)
			for _, name := range names {
				if strings.HasPrefix(name, "stay-") {
					got = append(got, name)
				}
			}
			if err == io.EOF {
				break
			}
			ok(t, err)
		}
		ok(t, d.Close())
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("round %d: %d names that stay, want %d, each once", round, len(got), stay)
		}
	}
	close(stop)
	wg.Wait()
	ok(t, churn)
	// Removing while listing, as rm -r does.
	d := open(t, dir, os.O_RDONLY)
	removed := 0
	for {
		names, err := d.Readdirnames(50)
		for _, name := range names {
			ok(t, os.Remove(filepath.Join(dir, name)))
			removed++
		}
		if err == io.EOF {
			break
		}
		ok(t, err)
	}
	if left, err := list(dir); err != nil || len(left) > 0 {
		t.Errorf("%d names left after removing %d while listing (%v)", len(left), removed, err)
	}
}

func rmdirOpen(t *testing.T, dir string) {
	d := filepath.Join(dir, "d")
	ok(t, os.Mkdir(d, 0o755))
	f := open(t, d, os.O_RDONLY)
	ok(t, os.Remove(d))
	_, err := unix.Openat(int(f.Fd()), "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
	refused(t, "creating in a removed directory", err, unix.ENOENT)
	if names, err := f.Readdirnames(-1); len(names) > 0 || err != nil && !errors.Is(err, unix.ENOENT) {
		t.Errorf("listing a removed directory: %q, %v", names, err)
	}
	ok(t, os.Mkdir(d, 0o755)) // the name is free
}

func deep(t *testing.T, dir string) {
	const depth = 60
	path := dir
	for i := range depth {
		path = filepath.Join(path, fmt.Sprintf("level-%d-%s", i, strings.Repeat("d", 40)))
		ok(t, os.Mkdir(path, 0o755))
	}
	put(t, filepath.Join(path, "f"), []byte("bottom"))
	contains(t, filepath.Join(path, "f"), []byte("bottom"))
	found := 0
	ok(t, filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			found++
		}
		return err
	}))
	if found != 1 {
		t.Errorf("walking found %d files, want 1", found)
	}
}

// parallel has many goroutines at one directory, each with names of its own
// and all with one in common.
func parallel(t *testing.T, dir string) {
	const workers, rounds = 8, 30
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			errs[w] = func() error {
				for i := range rounds {
					own := filepath.Join(dir, fmt.Sprintf("%d-%d", w, i))
					data := pattern(uint64(w*1000+i), 3000)
					if err := os.WriteFile(own, data, 0o644); err != nil {
						return err
					}
					if err := unix.Rename(own, filepath.Join(dir, "common")); err != nil {
						return err
					}
					got, err := os.ReadFile(filepath.Join(dir, "common"))
					if err != nil || len(got) != len(data) {
						return fmt.Errorf("read %d bytes of what is always whole: %w", len(got), err)
					}
					if err := os.Mkdir(filepath.Join(dir, "shared"), 0o755); err != nil && !errors.Is(err, syscall.EEXIST) {
						return err
					}
					if err := os.Remove(filepath.Join(dir, "shared")); err != nil && !errors.Is(err, syscall.ENOENT) {
						return err
					}
				}
				return nil
			}()
		})
	}
	wg.Wait()
	ok(t, errors.Join(errs...))
	if got, err := list(dir); err != nil || !slices.Equal(got, []string{"common"}) {
		t.Errorf("left: %q, %v", got, err)
	}
}

// list returns the names in a directory, sorted.
func list(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}
