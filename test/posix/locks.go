package posix

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var locks = []test{
	{"flock", flock},
	{"flock-waits", flockWaits},
	{"fcntl", fcntlLocks},
}

func flock(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	put(t, path, nil)
	a, b, c := open(t, path, os.O_RDWR), open(t, path, os.O_RDWR), open(t, path, os.O_RDONLY)
	lock := func(f *os.File, how int) error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) }
	ok(t, lock(a, unix.LOCK_EX))
	refused(t, "exclusive beside exclusive", lock(b, unix.LOCK_EX), unix.EWOULDBLOCK)
	refused(t, "shared beside exclusive", lock(b, unix.LOCK_SH), unix.EWOULDBLOCK)
	ok(t, lock(a, unix.LOCK_SH)) // becomes shared
	ok(t, lock(b, unix.LOCK_SH))
	ok(t, lock(c, unix.LOCK_SH))
	refused(t, "exclusive beside shared", lock(a, unix.LOCK_EX), unix.EWOULDBLOCK)
	ok(t, lock(a, unix.LOCK_UN))
	ok(t, lock(b, unix.LOCK_UN))
	ok(t, c.Close()) // closing gives it up
	ok(t, awaitLock(func() error { return lock(a, unix.LOCK_EX) }))

	// A descriptor and its copy are one holder.
	dup, err := unix.Dup(int(a.Fd()))
	ok(t, err)
	ok(t, a.Close())
	refused(t, "while a copy holds it", lock(b, unix.LOCK_EX), unix.EWOULDBLOCK)
	ok(t, unix.Close(dup))
	ok(t, awaitLock(func() error { return lock(b, unix.LOCK_EX) }))
}

// awaitLock tries until a lock that a close gives up is free: a file system in
// user space hears of the close after close(2) returned.
func awaitLock(try func() error) error {
	for range 1000 {
		if err := try(); !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EACCES) {
			return err
		}
		if _, err := unix.Poll(nil, 5); err != nil && !errors.Is(err, unix.EINTR) { // 5 ms
			return err
		}
	}
	return errors.New("a lock stays held after close")
}

func flockWaits(t *testing.T, dir string) {
	const workers, rounds = 6, 20
	path := filepath.Join(dir, "counter")
	put(t, path, []byte("0"))
	errs := make(chan error)
	for range workers {
		go func() {
			errs <- func() error {
				for range rounds {
					f, err := os.OpenFile(path, os.O_RDWR, 0)
					if err != nil {
						return err
					}
					for {
						if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
							break
						}
					}
					var n int
					if err == nil {
						_, err = fmt.Fscan(f, &n)
					}
					if err == nil {
						_, err = f.WriteAt([]byte(fmt.Sprint(n+1)), 0)
					}
					if err = errors.Join(err, f.Close()); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-errs)
	}
	ok(t, err)
	contains(t, path, []byte(fmt.Sprint(workers*rounds)))
}

// childEnv makes a test binary that calls Child a second holder of locks.
const childEnv = "DOS_TEST_LOCK_CHILD"

// Child is called first by TestMain of whoever runs the suite. In a process
// that the suite started it does what that asks and does not return: each line
// of input is TYPE START LEN of a lock to try on the file named, each line of
// output what came of it.
func Child() {
	path := os.Getenv(childEnv)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var typ int16
		var start, n int64
		if _, err := fmt.Sscan(lines.Text(), &typ, &start, &n); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(setLock(f, typ, start, n))
	}
	os.Exit(0)
}

func setLock(f *os.File, typ int16, start, n int64) error {
	return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: start, Len: n})
}

func fcntlLocks(t *testing.T, dir string) {
	path := filepath.Join(dir, "f")
	put(t, path, pattern(1, 1000))
	exe, err := os.Executable()
	ok(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	in, err := cmd.StdinPipe()
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	replies := bufio.NewScanner(out)
	other := func(typ int16, start, n int64) string {
		if _, err := fmt.Fprintln(in, typ, start, n); err != nil {
			t.Fatal(err)
		}
		if !replies.Scan() {
			t.Fatalf("the other process ended: %v", replies.Err())
		}
		return replies.Text()
	}
	f := open(t, path, os.O_RDWR)
	const free = "<nil>"
	busy := unix.EAGAIN.Error()
	for i, step := range []struct {
		mine     bool
		typ      int16
		start, n int64
		want     string
	}{
		{true, unix.F_WRLCK, 0, 100, free},
		{false, unix.F_WRLCK, 50, 10, busy},
		{false, unix.F_RDLCK, 99, 1, busy},
		{false, unix.F_WRLCK, 100, 100, free}, // beside it
		{true, unix.F_RDLCK, 150, 1, busy},
		{true, unix.F_RDLCK, 0, 50, free}, // half of it becomes shared
		{false, unix.F_RDLCK, 0, 50, free},
		{false, unix.F_RDLCK, 0, 60, busy},
		{true, unix.F_UNLCK, 50, 20, free}, // a hole in the rest
		{false, unix.F_WRLCK, 55, 5, free},
		{false, unix.F_WRLCK, 45, 5, busy},
		{true, unix.F_WRLCK, 0, 0, busy}, // to the end, whatever it will be
		{false, unix.F_UNLCK, 0, 0, free},
		{true, unix.F_WRLCK, 0, 0, free},
		{false, unix.F_RDLCK, 1 << 40, 1, busy},
	} {
		var got string
		if step.mine {
			got = fmt.Sprint(setLock(f, step.typ, step.start, step.n))
		} else {
			got = other(step.typ, step.start, step.n)
		}
		if got != step.want {
			t.Errorf("step %d: %+v: got %s", i+1, step, got)
		}
	}
	// F_GETLK names the holder.
	ok(t, setLock(f, unix.F_UNLCK, 0, 0))
	if got := other(unix.F_WRLCK, 7, 3); got != free {
		t.Fatalf("the other process's lock: %s", got)
	}
	q := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	ok(t, unix.FcntlFlock(f.Fd(), unix.F_GETLK, &q))
	if q.Type != unix.F_WRLCK || q.Start != 7 || q.Len != 3 || int(q.Pid) != cmd.Process.Pid {
		t.Errorf("F_GETLK: %+v, want a write lock of 3 at 7 by %d", q, cmd.Process.Pid)
	}
	// A process that ends gives up its locks.
	ok(t, in.Close())
	if replies.Scan() {
		t.Errorf("unexpected: %q", strings.TrimSpace(replies.Text()))
	}
	ok(t, cmd.Wait())
	ok(t, awaitLock(func() error { return setLock(f, unix.F_WRLCK, 0, 0) }))
}
