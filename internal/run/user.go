package run

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenAs opens a file with the rights of a user; nil is this process's own. The file is closed in programs that are
// started.
func OpenAs(u *User, path string, flags int, mode uint32) (*os.File, error) {
	flags |= unix.O_CLOEXEC
	if u == nil || os.Geteuid() != 0 {
		return open(path, flags, mode)
	}
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		// The thread, whose rights change, is not used again: its goroutine ends locked.
		runtime.LockOSThread()
		var r result
		if r.err = become(u); r.err == nil {
			r.f, r.err = open(path, flags, mode)
		}
		done <- r
	}()
	r := <-done
	return r.f, r.err
}

func open(path string, flags int, mode uint32) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags, mode)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// become gives the calling thread, and no other, the rights of a user to files.
// The package syscall would change all threads.
func become(u *User) error {
	var groups unsafe.Pointer
	if len(u.Groups) > 0 {
		groups = unsafe.Pointer(&u.Groups[0])
	}
	for _, call := range [][3]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(u.Groups)), uintptr(groups)},
		{unix.SYS_SETFSGID, uintptr(u.GID), 0},
		{unix.SYS_SETFSUID, uintptr(u.UID), 0},
	} {
		// setfsuid(2) and setfsgid(2) return what was before, and fail only if refused.
		if _, _, no := syscall.RawSyscall(call[0], call[1], call[2], 0); no != 0 {
			return no
		}
	}
	return nil
}
