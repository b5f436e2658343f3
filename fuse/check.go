package fuse

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckPoint says whether a mount would succeed, before its tree is opened. It
// clears away a dead mount of ours, and leaves nothing behind.
func CheckPoint(path string, o Options, log *slog.Logger) error {
	p, err := preparePoint(path, o, log)
	if err != nil {
		return err
	}
	p.remove()
	return nil
}

// The device through which the kernel speaks with servers of file systems.
const (
	devicePath               = "/dev/fuse"
	deviceMajor, deviceMinor = 10, 229
	loadModule               = "load the kernel module (modprobe fuse)"
	giveDevice               = "start the container with --device /dev/fuse --cap-add SYS_ADMIN"
)

// checkDevice says whether path is the device and this user may open it.
// Opening it has no effect before something is mounted.
func checkDevice(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s: %s, or %s", path, loadModule, giveDevice)
	case err != nil:
		return fmt.Errorf("%s cannot be looked at: %w", path, plainly(err))
	}
	dev := uint64(info.Sys().(*syscall.Stat_t).Rdev)
	if info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice || unix.Major(dev) != deviceMajor || unix.Minor(dev) != deviceMinor {
		return fmt.Errorf("%s is something else than the FUSE device (%s): as root, remove it and mknod -m 666 %s c %d %d, or %s",
			path, describe(info, dev), path, deviceMajor, deviceMinor, giveDevice)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return closedDevice(path, err)
	}
	return f.Close()
}

func describe(info fs.FileInfo, dev uint64) string {
	switch info.Mode().Type() {
	case fs.ModeDevice | fs.ModeCharDevice:
		return fmt.Sprintf("a character device %d:%d", unix.Major(dev), unix.Minor(dev))
	case fs.ModeDevice:
		return fmt.Sprintf("a block device %d:%d", unix.Major(dev), unix.Minor(dev))
	case fs.ModeDir:
		return "a directory"
	case 0:
		return "an ordinary file"
	}
	return info.Mode().String()
}

// closedDevice says why the device could not be opened and what helps.
func closedDevice(path string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s is closed to ordinary users on this machine: as root, chmod 666 %s, or mount as root", path, path)
	case errors.Is(err, syscall.EPERM): // a control group of the container says so
		return fmt.Errorf("%s is closed to this container: %s", path, giveDevice)
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("%s is there but the kernel does not serve it: %s", path, loadModule)
	}
	return fmt.Errorf("%s cannot be opened: %w", path, plainly(err))
}
