package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Real is the file system of this machine.
type Real struct{}

var _ FS = Real{}

func (Real) Create(name string) (File, error) {
	return openReal(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (Real) Open(name string) (File, error) { return openReal(name, os.O_RDWR) }

func openReal(name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return realFile{f}, nil
}

func (Real) Lock(dir string) (io.Closer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = control(f, "flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
	}
	return nil, err
}

func (Real) Mkdir(name string) error      { return os.Mkdir(name, 0o700) }
func (Real) Rename(from, to string) error { return os.Rename(from, to) }
func (Real) Remove(name string) error     { return os.Remove(name) }

func (Real) SyncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (Real) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (Real) Stat(name string) (Stat, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(name, &st) }); err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return statOf(&st), nil
}

func (Real) Space(name string) (Space, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(name, &st) }); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	return Space{Capacity: int64(st.Blocks) * unit, Free: int64(st.Bavail) * unit}, nil
}

func statOf(st *unix.Stat_t) Stat {
	return Stat{
		Dev: st.Dev, Ino: st.Ino, Links: uint64(st.Nlink), Size: st.Size,
		Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR,
	}
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// control runs call on the descriptor, which cannot be closed meanwhile.
func control(f *os.File, op string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = retry(func() error { return call(int(fd)) })
	})
	switch {
	case err != nil: // call did not run: only a closed file does that
		return &fs.PathError{Op: op, Path: f.Name(), Err: fs.ErrClosed}
	case failed != nil:
		return &fs.PathError{Op: op, Path: f.Name(), Err: failed}
	}
	return nil
}

type realFile struct{ *os.File }

func (f realFile) WriteVec(parts [][]byte, off int64) error {
	rest := make([][]byte, 0, len(parts))
	for _, p := range parts {
		if len(p) > 0 {
			rest = append(rest, p)
		}
	}
	for len(rest) > 0 {
		n := 0
		err := control(f.File, "pwritev", func(fd int) (err error) {
			n, err = unix.Pwritev(fd, rest, off)
			return err
		})
		if err == nil && n == 0 {
			err = &fs.PathError{Op: "pwritev", Path: f.Name(), Err: io.ErrShortWrite}
		}
		if err != nil {
			return err
		}
		off += int64(n)
		for len(rest) > 0 && n >= len(rest[0]) {
			n -= len(rest[0])
			rest = rest[1:]
		}
		if n > 0 {
			rest[0] = rest[0][n:]
		}
	}
	return nil
}

func (f realFile) Sync() error { return control(f.File, "fdatasync", unix.Fdatasync) }

func (f realFile) Punch(off, n int64) error {
	return control(f.File, "punch", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

func (f realFile) Allocate(n int64) error {
	return control(f.File, "fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, n) })
}

func (f realFile) NextData(off int64) (int64, error) {
	next := off
	err := control(f.File, "lseek", func(fd int) (err error) {
		next, err = unix.Seek(fd, off, unix.SEEK_DATA)
		return err
	})
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, io.EOF
	case errors.Is(err, unix.EINVAL): // a file system without holes
		return off, nil
	}
	return next, err
}

func (f realFile) Uncache(off, n int64) {
	// Advice: when it is not taken, the read is as good as any other.
	_ = control(f.File, "fadvise", func(fd int) error {
		return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED)
	})
}

func (f realFile) Stat() (Stat, error) {
	var st unix.Stat_t
	err := control(f.File, "fstat", func(fd int) error { return unix.Fstat(fd, &st) })
	return statOf(&st), err
}
