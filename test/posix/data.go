package posix

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var data = []test{
	{"sparse", sparse},
	{"seek-hole", seekHole},
	{"punch", punch},
	{"allocate", allocate},
	{"mmap", mmapShared},
	{"mmap-private", mmapPrivate},
	{"copy-range", copyRange},
	{"tmpfile", tmpfile},
}

// SparseSize is how far out the sparse file test writes, in bytes.
const SparseSize = 10 << 30

func sparse(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	f := open(t, path, os.O_RDWR|os.O_CREATE)
	for _, off := range []int64{0, 1 << 30, SparseSize - 3} {
		_, err := f.WriteAt([]byte("abc"), off)
		ok(t, err)
	}
	ok(t, f.Sync())
	st := lstat(t, path)
	if st.Size != SparseSize {
		t.Errorf("size %d, want %d", st.Size, int64(SparseSize))
	}
	if held := st.Blocks * 512; held > 8<<20 {
		t.Errorf("three times three bytes take %d bytes", held)
	}
	p := make([]byte, 1<<20)
	for _, off := range []int64{3, 1<<30 - 1<<20, 5 << 30, SparseSize - 3 - 1<<20} {
		_, err := f.ReadAt(p, off)
		ok(t, err)
		same(t, fmt.Sprintf("hole at %d", off), p, make([]byte, len(p)))
	}
	for _, off := range []int64{0, 1 << 30, SparseSize - 3} {
		got := make([]byte, 3)
		_, err := f.ReadAt(got, off)
		ok(t, err)
		same(t, fmt.Sprintf("data at %d", off), got, []byte("abc"))
	}
	ok(t, f.Truncate(SparseSize/2))
	ok(t, f.Truncate(SparseSize*2))
	ok(t, f.Close())
}

func seekHole(t *testing.T, dir string) {
	// Far enough apart that a file system may round to any block it likes.
	const block = 1 << 20
	f := open(t, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	for _, i := range []int64{2, 5} {
		_, err := f.WriteAt(pattern(uint64(i), block), i*block)
		ok(t, err)
	}
	ok(t, f.Truncate(8*block))
	fd := int(f.Fd())
	for range 2 { // while the data is buffered, and when it is stored
		for _, c := range []struct {
			off    int64
			whence int
			want   int64
		}{
			{0, unix.SEEK_HOLE, 0}, {0, unix.SEEK_DATA, 2},
			{2, unix.SEEK_DATA, 2}, {2, unix.SEEK_HOLE, 3},
			{3, unix.SEEK_DATA, 5}, {3, unix.SEEK_HOLE, 3},
			{5, unix.SEEK_HOLE, 6}, {7, unix.SEEK_HOLE, 7},
		} {
			if got, err := unix.Seek(fd, c.off*block, c.whence); err != nil || got != c.want*block {
				t.Errorf("seek from %d MiB, whence %d: got %d, %v, want %d", c.off, c.whence, got, err, c.want*block)
			}
		}
		_, err := unix.Seek(fd, 6*block, unix.SEEK_DATA)
		refused(t, "SEEK_DATA after the last data", err, unix.ENXIO)
		_, err = unix.Seek(fd, 8*block, unix.SEEK_HOLE)
		refused(t, "SEEK_HOLE at the end", err, unix.ENXIO)
		ok(t, f.Sync())
	}
}

func punch(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	want := pattern(7, 3<<20)
	put(t, path, want)
	f := open(t, path, os.O_RDWR)
	for _, r := range [][2]int64{{1 << 20, 1 << 20}, {100, 5000}, {3<<20 - 10, 100}} {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r[0], r[1])
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("the file system punches no holes")
		}
		ok(t, err)
		clear(want[r[0]:min(r[0]+r[1], int64(len(want)))])
		contains(t, path, want)
	}
}

func allocate(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	put(t, path, []byte("abc"))
	f := open(t, path, os.O_RDWR)
	err := unix.Fallocate(int(f.Fd()), 0, 0, 100000)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the file system does not preallocate")
	}
	ok(t, err)
	contains(t, path, append([]byte("abc"), make([]byte, 100000-3)...))
	ok(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 200000))
	if st := lstat(t, path); st.Size != 100000 {
		t.Errorf("FALLOC_FL_KEEP_SIZE: size %d, want 100000", st.Size)
	}
}

func mmapShared(t *testing.T, dir string) {
	const size = 3<<20 + 100
	path := filepath.Join(dir, "f")
	want := pattern(8, size)
	put(t, path, want)
	f := open(t, path, os.O_RDWR)
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	same(t, "map", m, want)
	g := open(t, path, os.O_RDWR)
	other, err := unix.Mmap(int(g.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	ok(t, err)
	for i := 0; i < size; i += 70001 {
		m[i]++
		want[i]++
	}
	copy(m[1<<20:], "through the map")
	copy(want[1<<20:], "through the map")
	same(t, "the other map", other, want)
	contains(t, path, want)
	_, err = f.WriteAt([]byte("through write"), 2<<20)
	ok(t, err)
	copy(want[2<<20:], "through write")
	same(t, "map after write", m, want)
	ok(t, unix.Msync(m, unix.MS_SYNC))
	m[5], want[5] = 'x', 'x'
	ok(t, f.Close()) // a map lives on without its descriptor
	m[size-1], want[size-1] = 'y', 'y'
	ok(t, unix.Munmap(m))
	same(t, "the other map", other, want)
	ok(t, unix.Munmap(other))
	ok(t, g.Sync())
	ok(t, g.Close())
	contains(t, path, want)
}

func mmapPrivate(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	want := pattern(9, 10000)
	put(t, path, want)
	f := open(t, path, os.O_RDONLY)
	m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	ok(t, err)
	m[0]++
	m[9999]++
	ok(t, unix.Munmap(m))
	contains(t, path, want)
}

func copyRange(t *testing.T, dir string) {
	want := pattern(10, 2<<20+77)
	put(t, filepath.Join(dir, "a"), want)
	a := open(t, filepath.Join(dir, "a"), os.O_RDONLY)
	b := open(t, filepath.Join(dir, "b"), os.O_RDWR|os.O_CREATE)
	n, err := io.Copy(b, a) // copy_file_range(2), where the kernel lets it
	if n != int64(len(want)) || err != nil {
		t.Fatalf("copied %d, %v", n, err)
	}
	contains(t, filepath.Join(dir, "b"), want)
}

func tmpfile(t *testing.T, dir string) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the file system has no O_TMPFILE")
	}
	ok(t, err)
	_, err = unix.Write(fd, []byte("secret"))
	ok(t, err)
	ok(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, filepath.Join(dir, "f"), unix.AT_SYMLINK_FOLLOW))
	ok(t, unix.Close(fd))
	contains(t, filepath.Join(dir, "f"), []byte("secret"))
}
