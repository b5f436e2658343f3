package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/fuse/vfs/vfstest"
	"dos/meta"
)

// down refuses everybody while it is true.
type down struct{ atomic.Bool }

func (d *down) Refuses(thread uint32) error {
	if thread == 0 || !d.Load() {
		return nil
	}
	return fmt.Errorf("thread %d: %w", thread, meta.Fenced)
}

// granted grants each lock to whom it knows.
type granted struct{}

func (granted) Try(ctx context.Context, _ meta.Lock) error {
	if _, ok := Thread(ctx); !ok {
		return meta.Permission
	}
	return nil
}

func (g granted) Wait(ctx context.Context, l meta.Lock) error { return g.Try(ctx, l) }

func (granted) Drop(context.Context, meta.Ino, meta.LockKind, uint64) error { return nil }

func (granted) Test(context.Context, meta.Lock) (l meta.Lock, err error) { return l, nil }

// Whom a fence refuses changes nothing, in whatever way it is tried, and can do it all
// when the fence is up again.
func TestFence(t *testing.T) {
	needFuse(t)
	c := vfstest.New(t, 1, 0o755)
	dir := t.TempDir()
	fence := new(down)
	s, err := Mount(t.Context(), Config{MountPoint: dir, FS: c.Mounts[0].FS, Fence: fence, Locks: granted{}, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() {
		fence.Store(false)
		bound, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		if err := s.Unmount(bound); err != nil {
			t.Errorf("unmounting: %v", err)
			detach(dir)
		}
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"file", "moved", "gone"} {
		must(t, os.WriteFile(at(name), []byte("text"), 0o644))
	}
	must(t, os.Mkdir(at("empty"), 0o755))
	must(t, unix.Setxattr(at("file"), "user.is", []byte("x"), 0))
	f := openHere(t, at("file"), os.O_RDWR)
	fd := int(f.Fd())
	changes := []struct {
		name string
		do   func() error
	}{
		{"write", func() error { _, err := unix.Pwrite(fd, []byte("T"), 0); return err }},
		{"read", func() error { _, err := unix.Pread(fd, make([]byte, 1), 0); return err }},
		{"ftruncate", func() error { return unix.Ftruncate(fd, 2) }},
		{"fallocate", func() error { return unix.Fallocate(fd, 0, 0, 100) }},
		{"flock", func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }},
		{"fcntl lock", func() error {
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		}},
		{"waiting for a lock", func() error { return unix.Flock(fd, unix.LOCK_EX) }},
		{"open", func() error {
			other, err := unix.Open(at("file"), unix.O_RDONLY, 0)
			if err == nil {
				err = unix.Close(other)
			}
			return err
		}},
		{"creat", func() error {
			other, err := unix.Open(at("new"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
			if err == nil {
				err = unix.Close(other)
			}
			return err
		}},
		{"mknod", func() error { return unix.Mknod(at("fifo"), unix.S_IFIFO|0o644, 0) }},
		{"mkdir", func() error { return unix.Mkdir(at("dir"), 0o755) }},
		{"symlink", func() error { return unix.Symlink("file", at("symlink")) }},
		{"link", func() error { return unix.Link(at("file"), at("link")) }},
		{"rename", func() error { return unix.Rename(at("moved"), at("there")) }},
		{"unlink", func() error { return unix.Unlink(at("gone")) }},
		{"rmdir", func() error { return unix.Rmdir(at("empty")) }},
		{"chmod", func() error { return unix.Chmod(at("file"), 0o600) }},
		{"chown", func() error { return unix.Chown(at("file"), 1, 2) }},
		{"utimes", func() error { return os.Chtimes(at("file"), time.Unix(1, 0), time.Unix(1, 0)) }},
		{"setxattr", func() error { return unix.Setxattr(at("file"), "user.new", []byte("y"), 0) }},
		{"removexattr", func() error { return unix.Removexattr(at("file"), "user.is") }},
	}
	looks := func() (text []string) {
		list, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range list {
			info, err := os.Lstat(at(e.Name()))
			must(t, err)
			st := info.Sys().(*syscall.Stat_t)
			text = append(text, fmt.Sprint(e.Name(), info.Mode(), info.Size(), st.Nlink, st.Uid, st.Gid, st.Mtim, st.Ctim))
		}
		return text
	}
	before := looks()
	fence.Store(true)
	for _, change := range changes {
		if err := change.do(); !errors.Is(err, syscall.ESTALE) {
			t.Errorf("%s behind the fence: %v, want %v", change.name, err, syscall.ESTALE)
		}
	}
	if after := looks(); !slices.Equal(after, before) {
		t.Errorf("it was\n%q\nand is\n%q", before, after)
	}
	fence.Store(false)
	for _, change := range changes {
		if err := change.do(); err != nil {
			t.Errorf("%s with the fence up: %v", change.name, err)
		}
	}
	got, err := os.ReadFile(at("file"))
	if want := "Te"; err != nil || string(got[:min(2, len(got))]) != want {
		t.Errorf("the file has %q, %v, want %q", got, err, want)
	}
}
