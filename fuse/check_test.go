package fuse

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCheckDevice(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o666))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("/dev/null", link))
	for _, test := range []struct {
		path string
		want []string // parts of the message
	}{
		{filepath.Join(dir, "missing"), []string{"there is no", "modprobe fuse", "--device"}},
		{filepath.Join(file, "x"), []string{"cannot be looked at"}},
		{dir, []string{"a directory", "c 10 229"}},
		{file, []string{"an ordinary file", "c 10 229"}},
		{"/dev/null", []string{"a character device 1:3", "c 10 229", "--device"}},
		{link, []string{"a character device 1:3"}},
	} {
		err := checkDevice(test.path)
		for _, part := range append(test.want, test.path) {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", test.path, err, part)
			}
		}
	}
	for err, part := range map[error]string{
		syscall.EACCES: "chmod 666 /dev/fuse",
		syscall.EPERM:  "--device /dev/fuse",
		syscall.ENODEV: "modprobe fuse",
		syscall.ENXIO:  "modprobe fuse",
		syscall.EIO:    "cannot be opened",
	} {
		got := closedDevice(devicePath, &os.PathError{Op: "open", Path: devicePath, Err: err})
		if !strings.HasPrefix(got.Error(), devicePath) || !strings.Contains(got.Error(), part) {
			t.Errorf("%v: %q, want %q", err, got, part)
		}
	}
	f, err := os.OpenFile(devicePath, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(f.Close(), checkDevice(devicePath))
		if err != nil {
			t.Errorf("the device itself: %v", err)
		}
	}
}
