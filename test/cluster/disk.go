package cluster

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts a file system of size bytes, in a file, until the test ends.
// What works on it must have begun after it, to end before it.
func SmallDisk(tb testing.TB, size int64) string {
	tb.Helper()
	NeedRoot(tb)
	Need(tb, "mkfs.ext4", "mount")
	dir := Dir(tb)
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close(), os.Mkdir(point, 0o755))
	}
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.CommandContext(tb.Context(), "mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		tb.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	MountDisk(tb, point)
	tb.Cleanup(func() {
		if err := Detach(point); err != nil {
			tb.Error(err)
		}
	})
	return point
}

// MountDisk mounts what SmallDisk made once more, after Detach.
func MountDisk(tb testing.TB, point string) {
	tb.Helper()
	image := filepath.Join(filepath.Dir(point), "image")
	if out, err := exec.CommandContext(tb.Context(), "mount", "-o", "loop", image, point).CombinedOutput(); err != nil {
		tb.Skipf("no loop devices here: %v: %s", err, out)
	}
}

// TakeAll makes a file of all the room that there is on its disk.
func TakeAll(tb testing.TB, path string) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	end := int64(0)
	for step := int64(256 << 20); step >= 4096; {
		err := unix.Fallocate(int(f.Fd()), 0, end, step)
		switch {
		case err == nil:
			end += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case !errors.Is(err, unix.EINTR):
			tb.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	tb.Logf("others took %d MiB", end>>20)
}
