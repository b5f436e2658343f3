package posix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var files = []test{
	{"create", create},
	{"sizes", sizes},
	{"overwrite", overwrite},
	{"truncate", truncate},
	{"truncate-open", truncateOpen},
	{"append", appendConcurrently},
	{"exclusive", exclusive},
	{"unlink-open", unlinkOpen},
	{"read-end", readEnd},
	{"open-flags", openFlags},
	{"write-back", writeBack},
	{"direct", direct},
}

func create(t *testing.T, dir string) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	for _, c := range []struct{ mode, want uint32 }{{0o666, 0o640}, {0o777, 0o750}, {0o400, 0o400}, {0, 0}, {0o4755, 0o4750}} {
		path := filepath.Join(dir, fmt.Sprintf("%o", c.mode))
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, c.mode)
		if err != nil {
			t.Fatalf("open with mode %o: %v", c.mode, err)
		}
		_, err = unix.Write(fd, []byte("x")) // the mode is not for the one who made it
		ok(t, errors.Join(err, unix.Close(fd)))
		st := lstat(t, path)
		want := c.want
		if want&0o6000 != 0 && os.Geteuid() != 0 {
			want &^= 0o6000 // writing took the set-id bits
		}
		if got := st.Mode; got != unix.S_IFREG|want {
			t.Errorf("mode %o under umask 027: got %o, want %o", c.mode, got, unix.S_IFREG|want)
		}
		if st.Size != 1 || st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
			t.Errorf("new file: size %d, links %d, owner %d", st.Size, st.Nlink, st.Uid)
		}
	}
}

// sizes writes and reads back at the sizes where storage changes its ways.
func sizes(t *testing.T, dir string) {
	for i, n := range []int{0, 1, 511, 4095, 4096, 4097, 8192, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1<<20 - 1, 1<<20 + 1, 4<<20 - 1, 4 << 20, 4<<20 + 1, 9<<20 + 12345} {
		path := filepath.Join(dir, fmt.Sprint(n))
		want := pattern(uint64(i), n)
		put(t, path, want)
		contains(t, path, want)
		f := open(t, path, os.O_RDONLY)
		ok(t, f.Sync())
		for _, off := range []int{0, n / 3, n - 1} {
			if off < 0 || off >= n {
				continue
			}
			got := make([]byte, min(5000, n-off))
			if _, err := f.ReadAt(got, int64(off)); err != nil {
				t.Fatalf("reading %d bytes at %d of %d: %v", len(got), off, n, err)
			}
			same(t, fmt.Sprintf("%d bytes at %d of %d", len(got), off, n), got, want[off:off+len(got)])
		}
		ok(t, f.Close())
		if st := lstat(t, path); st.Size != int64(n) {
			t.Errorf("size %d, want %d", st.Size, n)
		}
	}
}

func overwrite(t *testing.T, dir string) {
	const size = 6 << 20
	path := filepath.Join(dir, "f")
	want := pattern(1, size)
	put(t, path, want)
	f := open(t, path, os.O_RDWR)
	for i, r := range [][2]int{{0, 1}, {size - 1, 1}, {4<<20 - 10, 20}, {100, 4096}, {1 << 20, 1 << 20}, {4096, 4096}, {5, 70000}, {size - 100, 200}} {
		off, n := r[0], r[1]
		p := pattern(uint64(100+i), n)
		if _, err := f.WriteAt(p, int64(off)); err != nil {
			t.Fatalf("writing %d bytes at %d: %v", n, off, err)
		}
		want = append(want[:off:off], append(p, want[min(off+n, len(want)):]...)...)
		if i%3 == 2 {
			ok(t, f.Sync())
		}
		contains(t, path, want)
	}
	ok(t, f.Close())
	contains(t, path, want)
}

func truncate(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	want := pattern(2, 3<<20)
	put(t, path, want)
	for _, n := range []int{2<<20 + 7, 2<<20 + 5000, 100, 5 << 20, 4096, 4095, 0, 10} {
		ok(t, os.Truncate(path, int64(n)))
		want = append(want[:min(n, len(want)):min(n, len(want))], make([]byte, max(0, n-len(want)))...)
		if st := lstat(t, path); st.Size != int64(n) {
			t.Errorf("truncated to %d: size %d", n, st.Size)
		}
		contains(t, path, want)
	}
	refused(t, "truncating to -1", unix.Truncate(path, -1), unix.EINVAL)
	refused(t, "truncating a directory", unix.Truncate(dir, 0), unix.EISDIR)
	refused(t, "truncating what is not there", unix.Truncate(filepath.Join(dir, "none"), 0), unix.ENOENT)
}

// truncateOpen cuts a file while its data is still on the way.
func truncateOpen(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	f := open(t, path, os.O_RDWR|os.O_CREATE)
	p := pattern(3, 300000)
	_, err := f.Write(p)
	ok(t, err)
	ok(t, f.Truncate(100000))
	ok(t, f.Truncate(200000))
	contains(t, path, append(bytes.Clone(p[:100000]), make([]byte, 100000)...))
	_, err = f.WriteAt([]byte("end"), 250000)
	ok(t, err)
	want := append(append(bytes.Clone(p[:100000]), make([]byte, 150000)...), "end"...)
	contains(t, path, want)
	ok(t, f.Sync())
	contains(t, path, want)
	g := open(t, path, os.O_RDWR|os.O_TRUNC)
	if st := lstat(t, path); st.Size != 0 {
		t.Errorf("O_TRUNC left %d bytes", st.Size)
	}
	ok(t, g.Close())
	// The first descriptor writes on at its place: a hole and the data.
	_, err = f.Write([]byte("z"))
	ok(t, err)
	contains(t, path, append(make([]byte, 300000), 'z'))
	ok(t, f.Close())
}

func appendConcurrently(t *testing.T, dir string) {
	const writers, records, size = 8, 150, 113
	path := filepath.Join(dir, "log")
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			for r := 0; r < records && err == nil; r++ {
				rec := fmt.Appendf(nil, "%d %d ", w, r)
				rec = append(rec, bytes.Repeat([]byte("."), size-1-len(rec))...)
				_, err = f.Write(append(rec, '\n'))
			}
			if f != nil {
				err = errors.Join(err, f.Close())
			}
			errs[w] = err
		})
	}
	wg.Wait()
	ok(t, errors.Join(errs...))
	got, err := os.ReadFile(path)
	ok(t, err)
	if len(got) != writers*records*size {
		t.Fatalf("%d bytes, want %d: appends overwrote each other", len(got), writers*records*size)
	}
	next := make([]int, writers)
	for i := 0; i < len(got); i += size {
		var w, r int
		if _, err := fmt.Sscanf(string(got[i:i+size]), "%d %d ", &w, &r); err != nil || got[i+size-1] != '\n' {
			t.Fatalf("record at %d is torn: %q", i, got[i:i+size])
		}
		if next[w] != r {
			t.Fatalf("writer %d: record %d where %d should be", w, r, next[w])
		}
		next[w]++
	}
}

func exclusive(t *testing.T, dir string) {
	const racers = 16
	for round := range 10 {
		path := filepath.Join(dir, fmt.Sprint(round))
		var wg sync.WaitGroup
		errs := make([]error, racers)
		for i := range racers {
			wg.Go(func() {
				f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				if err == nil {
					err = f.Close()
				}
				errs[i] = err
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, syscall.EEXIST) {
				t.Errorf("O_EXCL: got %v, want EEXIST", err)
			}
		}
		if won != 1 {
			t.Errorf("%d of %d created %s with O_EXCL, want 1", won, racers, path)
		}
	}
	ok(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	_, err := os.OpenFile(filepath.Join(dir, "link"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	refused(t, "O_EXCL on a dangling symlink", err, unix.EEXIST)
}

func unlinkOpen(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	f := open(t, path, os.O_RDWR|os.O_CREATE)
	want := pattern(4, 200000)
	_, err := f.Write(want)
	ok(t, err)
	ok(t, os.Remove(path))
	_, err = os.Stat(path)
	refused(t, "stat after unlink", err, unix.ENOENT)
	put(t, path, []byte("another")) // the name is free
	var st unix.Stat_t
	ok(t, unix.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 || st.Size != int64(len(want)) {
		t.Errorf("unlinked open file: links %d, size %d", st.Nlink, st.Size)
	}
	_, err = f.WriteAt([]byte("more"), int64(len(want)))
	ok(t, err)
	ok(t, f.Sync())
	ok(t, f.Chmod(0o600))
	got := make([]byte, len(want)+4)
	_, err = f.ReadAt(got, 0)
	ok(t, err)
	same(t, "unlinked open file", got, append(want, "more"...))
	ok(t, f.Truncate(5))
	ok(t, f.Close())
	contains(t, path, []byte("another"))

	// Replaced by a rename while open.
	g := open(t, path, os.O_RDONLY)
	put(t, path+".new", []byte("third"))
	ok(t, unix.Rename(path+".new", path))
	got, err = io.ReadAll(g)
	ok(t, err)
	same(t, "renamed over while open", got, []byte("another"))
	contains(t, path, []byte("third"))
}

func readEnd(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	put(t, path, []byte("0123456789"))
	f := open(t, path, os.O_RDWR)
	p := make([]byte, 100)
	if n, err := unix.Pread(int(f.Fd()), p, 5); n != 5 || err != nil {
		t.Errorf("pread of 100 at 5 of 10: got %d, %v", n, err)
	}
	for _, off := range []int64{10, 11, 1 << 40} {
		if n, err := unix.Pread(int(f.Fd()), p, off); n != 0 || err != nil {
			t.Errorf("pread at %d of 10: got %d, %v, want the end", off, n, err)
		}
	}
	_, err := unix.Pread(int(f.Fd()), p, -1)
	refused(t, "pread at -1", err, unix.EINVAL)
	// What another descriptor adds is there at once.
	g := open(t, path, os.O_WRONLY|os.O_APPEND)
	_, err = g.Write([]byte("abc"))
	ok(t, err)
	if n, err := unix.Pread(int(f.Fd()), p, 10); n != 3 || err != nil || string(p[:3]) != "abc" {
		t.Errorf("pread of what was just appended: got %q, %v", p[:max(n, 0)], err)
	}
	if end, err := f.Seek(0, io.SeekEnd); end != 13 || err != nil {
		t.Errorf("SEEK_END: %d, %v, want 13", end, err)
	}
}

func openFlags(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	put(t, path, []byte("data"))
	r := open(t, path, os.O_RDONLY)
	_, err := unix.Write(int(r.Fd()), []byte("x"))
	refused(t, "write to a descriptor for reading", err, unix.EBADF)
	w := open(t, path, os.O_WRONLY)
	_, err = unix.Read(int(w.Fd()), make([]byte, 1))
	refused(t, "read from a descriptor for writing", err, unix.EBADF)
	for _, c := range []struct {
		path  string
		flags int
		want  syscall.Errno
	}{
		{dir, unix.O_WRONLY, unix.EISDIR},
		{dir, unix.O_RDWR, unix.EISDIR},
		{path, unix.O_DIRECTORY, unix.ENOTDIR},
		{path + "/x", unix.O_RDONLY, unix.ENOTDIR},
		{path + "/x", unix.O_CREAT | unix.O_WRONLY, unix.ENOTDIR},
		{filepath.Join(dir, "no/x"), unix.O_CREAT | unix.O_WRONLY, unix.ENOENT},
		{filepath.Join(dir, "no"), unix.O_RDONLY, unix.ENOENT},
	} {
		fd, err := unix.Open(c.path, c.flags, 0o644)
		if err == nil {
			ok(t, unix.Close(fd))
		}
		refused(t, fmt.Sprintf("open(%q, %#x)", c.path, c.flags), err, c.want)
	}
}

// writeBack holds each way to ask for durability to accepting the question.
func writeBack(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	f := open(t, path, os.O_RDWR|os.O_CREATE)
	_, err := f.Write(pattern(5, 100000))
	ok(t, err)
	ok(t, unix.Fdatasync(int(f.Fd())))
	ok(t, unix.Fsync(int(f.Fd())))
	ok(t, unix.Syncfs(int(f.Fd())))
	d := open(t, dir, os.O_RDONLY)
	ok(t, d.Sync())
	ok(t, unix.Fdatasync(int(d.Fd())))
	for _, flag := range []int{unix.O_SYNC, unix.O_DSYNC} {
		g := open(t, path, os.O_WRONLY|flag)
		_, err = g.WriteAt([]byte("synced"), 50000)
		ok(t, err)
		ok(t, g.Close())
	}
	want := pattern(5, 100000)
	copy(want[50000:], "synced")
	contains(t, path, want)
}

// direct reads and writes past the page cache, and through it.
func direct(t *testing.T, dir string) {
	const size = 1 << 20
	path := filepath.Join(dir, "f")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT, 0o644)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("the file system has no O_DIRECT")
	}
	ok(t, err)
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	ok(t, err)
	defer unix.Munmap(buf)
	want := pattern(6, size)
	copy(buf, want)
	if n, err := unix.Pwrite(fd, buf, 0); n != size || err != nil {
		t.Fatalf("direct write: %d, %v", n, err)
	}
	contains(t, path, want)
	f := open(t, path, os.O_RDWR)
	_, err = f.WriteAt([]byte("through the cache"), 8192)
	ok(t, err)
	copy(want[8192:], "through the cache")
	clear(buf)
	if n, err := unix.Pread(fd, buf, 0); n != size || err != nil {
		t.Fatalf("direct read: %d, %v", n, err)
	}
	same(t, "direct read", buf, want)
}
