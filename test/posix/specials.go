package posix

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

var specials = []test{
	{"fifo", fifo},
	{"device", device},
	{"socket", socket},
}

func fifo(t *testing.T, dir string) {
	path := filepath.Join(dir, "fifo")
	ok(t, unix.Mkfifo(path, 0o640))
	if st := lstat(t, path); st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("mode %o is no FIFO's", st.Mode)
	}
	want := pattern(1, 300000)
	sent := make(chan error)
	go func() {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = w.Write(want)
			err = errors.Join(err, w.Close())
		}
		sent <- err
	}()
	r, err := os.Open(path)
	ok(t, err)
	got, err := io.ReadAll(r)
	ok(t, errors.Join(err, <-sent, r.Close()))
	same(t, "fifo", got, want)
	_, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	refused(t, "a FIFO without a reader", err, unix.ENXIO)
}

func device(t *testing.T, dir string) {
	needRoot(t)
	path := filepath.Join(dir, "null")
	null := unix.Mkdev(1, 3)
	ok(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(null)))
	if st := lstat(t, path); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != null {
		t.Errorf("mode %o, rdev %#x, want a character device %#x", st.Mode, st.Rdev, null)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, unix.EACCES) {
		t.Skip("the file system is mounted nodev")
	}
	ok(t, err)
	_, err = f.Write([]byte("into the void"))
	ok(t, err)
	if n, err := f.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("reading the null device: %d, %v", n, err)
	}
	ok(t, f.Close())
	large := unix.Mkdev(259, 70000)
	ok(t, unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(large)))
	if st := lstat(t, filepath.Join(dir, "block")); st.Rdev != large {
		t.Errorf("rdev %#x, want %#x", st.Rdev, large)
	}
}

func socket(t *testing.T, dir string) {
	// A socket's path must be short; its directory may stand for itself.
	d := open(t, dir, os.O_RDONLY)
	path := filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), "s")
	l, err := net.Listen("unix", path)
	ok(t, err)
	if st := lstat(t, filepath.Join(dir, "s")); st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		t.Errorf("mode %o is no socket's", st.Mode)
	}
	c, err := net.Dial("unix", path)
	ok(t, err)
	ok(t, errors.Join(c.Close(), l.Close()))
	_, err = os.Stat(filepath.Join(dir, "s"))
	refused(t, "the socket after close", err, unix.ENOENT)
}
