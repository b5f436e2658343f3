package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/fuse/vfs/vfstest"
	"dos/meta"
)

// believing opens a file and reads it until the kernel may answer by itself, with its
// pages cached.
func believing(t *testing.T, m *vfstest.Mount, path string) *os.File {
	t.Helper()
	f := openHere(t, path, os.O_RDONLY)
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	buf := make([]byte, st.Size)
	limit := time.Now().Add(20 * time.Second)
	for {
		_, err := f.ReadAt(buf, 0)
		must(t, err)
		_, good, err := m.AttrFor(t.Context(), meta.Ino(st.Ino))
		must(t, err)
		if good > 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the mount never takes a lease of what is read all the time")
		}
	}
	for range 3 { // the next GETATTR is answered with a time, and then no more are sent
		_, err := f.ReadAt(buf, 0)
		must(t, err)
	}
	return f
}

// Mounts whose kernels read a file by themselves see every change of another mount,
// or their own, as soon as it was made, by its descriptor and by its name.
func TestSharedBelieved(t *testing.T) {
	c, dirs := sharedMounts(t, 3)
	const size = 64 << 10
	set := time.Unix(1e9, 0)
	text := func(b byte) []byte { return bytes.Repeat([]byte{b}, size) }
	holds := func(f *os.File, want []byte) error {
		got, err := io.ReadAll(io.NewSectionReader(f, 0, 2*size))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("it reads %d bytes, %.3q…, want %d, %.3q…", len(got), got, len(want), want)
		}
		return err
	}
	is := func(f *os.File, ok func(st *unix.Stat_t) bool) error {
		var st unix.Stat_t
		err := unix.Fstat(int(f.Fd()), &st)
		if err == nil && !ok(&st) {
			err = fmt.Errorf("it says %+v", st)
		}
		return err
	}
	for _, tc := range []struct {
		what   string
		change func(path string) error
		seen   func(f *os.File, path string) error
	}{
		{"write", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("new"), 0) // and it is seen before it is stored
			t.Cleanup(func() { f.Close() })
			return err
		}, func(f *os.File, _ string) error { return holds(f, append([]byte("new"), text('a')[3:]...)) }},
		{"rewrite, same size and mtime", func(path string) error {
			return errors.Join(os.WriteFile(path, text('b'), 0), os.Chtimes(path, set, set))
		}, func(f *os.File, _ string) error { return holds(f, text('b')) }},
		{"append", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.Write([]byte("more"))
			return errors.Join(err, f.Close())
		}, func(f *os.File, _ string) error { return holds(f, append(text('a'), "more"...)) }},
		{"truncate", func(path string) error { return os.Truncate(path, 7) },
			func(f *os.File, _ string) error { return holds(f, text('a')[:7]) }},
		{"chmod", func(path string) error { return os.Chmod(path, 0o600) },
			func(f *os.File, _ string) error {
				return is(f, func(st *unix.Stat_t) bool { return st.Mode&0o777 == 0o600 })
			}},
		{"chown", func(path string) error { return os.Chown(path, 12, 34) },
			func(f *os.File, _ string) error {
				return is(f, func(st *unix.Stat_t) bool { return st.Uid == 12 && st.Gid == 34 })
			}},
		{"link", func(path string) error { return os.Link(path, path+" too") },
			func(f *os.File, _ string) error {
				return is(f, func(st *unix.Stat_t) bool { return st.Nlink == 2 })
			}},
		{"unlink", os.Remove, func(f *os.File, path string) error {
			if _, err := os.Stat(path); !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("its name: %w", err)
			}
			return errors.Join(holds(f, text('a')), is(f, func(st *unix.Stat_t) bool { return st.Nlink == 0 }))
		}},
		{"rename over", func(path string) error {
			return errors.Join(os.WriteFile(path+" new", text('c'), 0o644), os.Rename(path+" new", path))
		}, func(f *os.File, path string) error {
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, text('c')) {
				return fmt.Errorf("by its name: %.3q…, %w", got, err)
			}
			return errors.Join(holds(f, text('a')), is(f, func(st *unix.Stat_t) bool { return st.Nlink == 0 }))
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			for round := range 6 {
				by := round % len(dirs) // one that does not read, or one that does
				name := fmt.Sprint(tc.what, round)
				must(t, os.WriteFile(filepath.Join(dirs[2], name), text('a'), 0o644))
				must(t, os.Chtimes(filepath.Join(dirs[2], name), set, set))
				var files []*os.File
				for i, dir := range dirs[:2] {
					f := believing(t, c.Mounts[i], filepath.Join(dir, name))
					must(t, holds(f, text('a')))
					files = append(files, f)
				}
				must(t, tc.change(filepath.Join(dirs[by], name)))
				for i, f := range files {
					if err := tc.seen(f, filepath.Join(dirs[i], name)); err != nil {
						t.Fatalf("round %d, by mount %d: on mount %d: %v", round, by, i, err)
					}
				}
			}
		})
	}
}
