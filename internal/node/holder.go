package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dos/fuse"
)

// The lock file of a data directory says who holds it:
//
//	process 1234
//	process 1234 at /dos
//
// the second once it has mounted. It informs people, and a start that finds its
// predecessor not quite gone.

const (
	// goingLimit bounds how long a start waits for a process that is on its way
	// out. A clean stop stores what is buffered first, which may take as long as
	// an operation may.
	goingLimit = 30 * time.Second
	goingPoll  = 10 * time.Millisecond
)

// noteHolder says in the lock file that this process holds it, and where it
// has mounted, if it has. It writes in place, which needs no room on a full disk.
func noteHolder(lock *os.File, point string) error {
	text := fmt.Sprintf("process %d", os.Getpid())
	if point != "" {
		text += " at " + point
	}
	if _, err := lock.WriteAt([]byte(text+"\n"), 0); err != nil {
		return err
	}
	return lock.Truncate(int64(len(text)) + 1)
}

func holder(lock *os.File) string {
	text := make([]byte, 2*unix.PathMax)
	n, _ := lock.ReadAt(text, 0)
	return strings.TrimSuffix(string(text[:n]), "\n")
}

// pointDir is the directory whose lock file says who mounts a cluster at a mount
// point: such a mount has no data directory.
func pointDir(point string) string {
	return filepath.Join(runDir(), "mounts", fmt.Sprintf("%x", sha256.Sum256([]byte(point)))[:16])
}

// holdPoint takes that directory, until the lock is closed.
func holdPoint(point string) (lock *os.File, err error) {
	dir := pointDir(point)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := noteHolder(lock, ""); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// awaitGoing waits while the data directory at path is held by a process that
// is on its way out: one that was killed, since kill(1) returns before its
// victim has let go of everything, or whose mount was just taken away. So a
// start right after either finds what it would find a moment later. It touches
// nothing and leaves every other trouble to whoever opens the directory.
func awaitGoing(ctx context.Context, path string) {
	lock, err := os.Open(filepath.Join(path, "lock"))
	if err != nil {
		return
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(ctx, goingLimit)
	defer cancel()
	tick := time.NewTicker(goingPoll)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || !isGoing(holder(lock)) {
			return // closing it lets go of the lock
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// isGoing reports whether the holder, as a lock file names it, is on its way
// out: it was killed, or its mount is gone.
func isGoing(holder string) bool {
	who, point, mounted := strings.Cut(holder, " at ")
	var pid int
	if n, _ := fmt.Sscanf(who, "process %d", &pid); n != 1 {
		return false
	}
	if wasKilled(pid) {
		return true
	}
	if !mounted {
		return false
	}
	still, err := fuse.Mounted(pid, point)
	return err == nil && !still
}

// wasKilled reports whether a process has SIGKILL before it or is exiting.
func wasKilled(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) // it is gone, and its lock in this moment
	}
	for line := range strings.Lines(string(status)) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), ":")
		val = strings.TrimSpace(val)
		switch key {
		case "State":
			if strings.HasPrefix(val, "Z") || strings.HasPrefix(val, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			var set uint64
			if _, err := fmt.Sscanf(val, "%x", &set); err == nil && set&(1<<(syscall.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return isExiting(pid)
}

// isExiting reports whether the kernel is taking a process down (PF_EXITING).
func isExiting(pid int) bool {
	const exiting = 0x4 // of the 9th field in proc_pid_stat(5), the 7th after the name
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var flags uint64
	if len(fields) < 7 {
		return false
	}
	_, err = fmt.Sscanf(fields[6], "%d", &flags)
	return err == nil && flags&exiting != 0
}
