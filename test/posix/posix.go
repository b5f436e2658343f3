// Package posix says in code what every program expects of a directory: files,
// names, links, renames, permissions, times, attributes, maps and locks as
// POSIX and Linux have them. The suite knows nothing of dos; any directory can
// run it, and a plain one is its reference.
package posix

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A test is one expectation. dir is empty and its own.
type test struct {
	name string
	run  func(t *testing.T, dir string)
}

// Run runs the suite below dir, which must exist. Programs that run it call
// Child first in TestMain.
func Run(t *testing.T, dir string) {
	for _, test := range slices.Concat(files, data, names, renames, owners, specials, locks, models) {
		t.Run(test.name, func(t *testing.T) {
			own := filepath.Join(dir, test.name)
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
			test.run(t, own)
			if err := os.RemoveAll(own); err != nil {
				t.Errorf("removing everything: %v", err)
			}
		})
	}
}

// ok fails the test when a call that must succeed did not.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused fails the test unless err is one of the errors wanted.
func refused(t *testing.T, what string, err error, want ...syscall.Errno) {
	t.Helper()
	if !slices.ContainsFunc(want, func(e syscall.Errno) bool { return errors.Is(err, e) }) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	ok(t, os.WriteFile(path, data, 0o644))
}

func contains(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	ok(t, err)
	same(t, path, got, want)
}

// same says where two byte strings differ first.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	n := min(len(got), len(want))
	for i := range n {
		if got[i] != want[i] {
			n = i
			break
		}
	}
	t.Fatalf("%s: got %d bytes, want %d; they differ from byte %d", what, len(got), len(want), n)
}

// pattern is n bytes that differ by seed and have no short period.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	ok(t, err)
	t.Cleanup(func() { f.Close() }) // a second close is no error here
	return f
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

// As runs f on a thread whose user and groups are the ones given. Only root may.
func As(uid, gid int, groups []int, f func() error) error {
	errc := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine and
		// nobody inherits its identity.
		runtime.LockOSThread()
		errc <- func() error {
			gids := make([]uint32, len(groups)+1)
			for i, g := range groups {
				gids[i] = uint32(g)
			}
			// The raw calls: package syscall's change all threads.
			if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(gids))), 0); e != 0 {
				return os.NewSyscallError("setgroups", e)
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
				return os.NewSyscallError("setresgid", e)
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				return os.NewSyscallError("setresuid", e)
			}
			return f()
		}()
	}()
	return <-errc
}
