package fuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/lock"
	"dos/meta/metatest"
	"dos/meta/node"
)

// A lockWorld is two mounts, as of two machines, with one lock service. Each has
// a file f of the same inode.
type lockWorld struct {
	t        *testing.T
	service  *metatest.Memory
	a, b     string // the file in each
	lockers  []*client.Locker
	sessions []meta.SessionID
}

func newLockWorld(t *testing.T) *lockWorld {
	t.Helper()
	needFuse(t)
	w := &lockWorld{t: t, service: metatest.NewMemory(node.Machine())}
	var files []string
	for range 2 {
		info, err := client.Session{Caller: client.Direct(w.service, 0)}.Open(t.Context(), "test", "", 0)
		must(t, err)
		k := client.NewLocker(client.NewRemote(w.service, info.ID), func() meta.SessionID { return info.ID })
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- k.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ran })
		m := mountHere(t, func(c *Config) { c.Locks = k })
		w.lockers, w.sessions = append(w.lockers, k), append(w.sessions, info.ID)
		path := filepath.Join(m.dir, "f")
		must(t, os.WriteFile(path, []byte("0123456789"), 0o666))
		files = append(files, path)
	}
	w.a, w.b = files[0], files[1]
	return w
}

// queued waits until n wait for locks of the mount at index i.
func (w *lockWorld) queued(i, n int) {
	w.t.Helper()
	locks := client.Locks{Caller: client.Direct(w.service, 0), Session: w.sessions[i]}
	w.until(fmt.Sprintf("%d to wait", n), func() bool {
		now, err := locks.Await(w.t.Context(), lock.Waiting{})
		must(w.t, err)
		return len(now.Waits) == n
	})
}

func (w *lockWorld) until(what string, done func() bool) {
	w.t.Helper()
	for late := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(late) {
			w.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// A contender is a process that takes a lock of a whole file and keeps it.
type contender struct {
	cmd *exec.Cmd
	in  io.Closer
	got chan time.Time // when it had the lock; closed when it has ended
}

// contend starts one; how is flock or fcntl.
func (w *lockWorld) contend(how, path string) *contender {
	w.t.Helper()
	cmd := child(w.t, "lock "+how+" "+path)
	in, err := cmd.StdinPipe()
	must(w.t, err)
	out, err := cmd.StdoutPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	c := &contender{cmd, in, make(chan time.Time, 1)}
	go func() {
		defer close(c.got)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "held" {
				c.got <- time.Now()
			} else {
				w.t.Errorf("a contender for %s: %s", path, lines.Text())
			}
		}
		_ = cmd.Wait() // it may have been killed
	}()
	w.t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill() })
	return c
}

func childLock(arg string) {
	how, path, _ := strings.Cut(arg, " ")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	for err == nil {
		if how == "flock" {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		} else {
			err = unix.FcntlFlock(f.Fd(), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		}
		if err == nil {
			break
		}
		if errors.Is(err, syscall.EINTR) {
			err = nil
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func (w *lockWorld) held(what string, c *contender) time.Time {
	w.t.Helper()
	select {
	case at, ok := <-c.got:
		if !ok {
			w.t.Fatalf("%s ended without the lock", what)
		}
		return at
	case <-time.After(20 * time.Second):
		w.t.Fatalf("%s does not get the lock", what)
	}
	panic("unreachable")
}

func (w *lockWorld) kill(c *contender) {
	w.t.Helper()
	must(w.t, c.cmd.Process.Kill())
	for range c.got {
	}
}

// Processes of two machines take turns. Who is killed is succeeded at once, and
// who is killed while he waits leaves no trace.
func TestLocksAcross(t *testing.T) {
	for _, how := range []string{"flock", "fcntl"} {
		t.Run(how, func(t *testing.T) {
			w := newLockWorld(t)
			first := w.contend(how, w.a)
			w.held("the first", first)
			killed := w.contend(how, w.b)
			w.queued(1, 1)
			last := w.contend(how, w.b)
			w.queued(1, 2)
			w.kill(killed)
			w.queued(1, 1)
			select {
			case <-last.got:
				t.Fatal("two have the lock")
			default:
			}
			began := time.Now()
			w.kill(first)
			took := w.held("the last", last).Sub(began)
			t.Logf("a killed holder was succeeded after %v", took)
			if took > time.Second {
				t.Error("that is too late")
			}
			must(t, last.in.Close())
			w.held("another", w.contend(how, w.a))
		})
	}
}

// A Go program that waits is interrupted all the time and keeps its place.
func TestLocksInterrupted(t *testing.T) {
	w := newLockWorld(t)
	first := w.contend("flock", w.a)
	w.held("the first", first)
	stormy := w.contend("flock", w.b)
	w.queued(1, 1)
	commands := w.service.Commands()
	for range 300 {
		must(t, stormy.cmd.Process.Signal(syscall.SIGURG))
		time.Sleep(time.Millisecond) // so that each is seen
	}
	if n := w.service.Commands() - commands; n > 0 {
		t.Errorf("waiting through it took %d commands", n)
	}
	calm := w.contend("flock", w.a)
	w.queued(0, 1)
	must(t, stormy.cmd.Process.Signal(syscall.SIGURG))
	must(t, first.in.Close())
	w.held("who was interrupted", stormy)
	select {
	case <-calm.got:
		t.Fatal("two have the lock")
	default:
	}
	w.kill(stormy)
	w.held("who came later", calm)
}

// flock(1) with a time limit gives up, and then waits no more.
func TestLocksTimeout(t *testing.T) {
	w := newLockWorld(t)
	flock, err := exec.LookPath("flock")
	if err != nil {
		t.Skip("needs flock(1)")
	}
	first := w.contend("flock", w.a)
	w.held("the first", first)
	for _, args := range [][]string{{"-w", "0.2"}, {"-n"}, {"-s", "-n"}} {
		out, err := exec.Command(flock, append(args, w.b, "true")...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("flock %v: %v: %s", args, err, out)
		}
	}
	w.queued(1, 0)
	must(t, first.in.Close())
	for range first.got {
	}
	if out, err := exec.Command(flock, "-w", "10", w.b, "true").CombinedOutput(); err != nil {
		t.Errorf("flock: %v: %s", err, out)
	}
}

func record(f *os.File, cmd int, typ int16, start, n int64) (unix.Flock_t, error) {
	l := unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: start, Len: n}
	err := unix.FcntlFlock(f.Fd(), cmd, &l)
	return l, err
}

func openFile(t *testing.T, path string, how int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, how, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Locks end with the descriptor or the open file that they belong to, and
// F_GETLK says whose they are.
func TestLocksClose(t *testing.T) {
	w := newLockWorld(t)
	b := openFile(t, w.b, os.O_RDWR)
	free := func(what string) {
		t.Helper()
		w.until(what+" to be given up", func() bool {
			l, err := record(b, unix.F_GETLK, unix.F_WRLCK, 0, 0)
			must(t, err)
			return l.Type == unix.F_UNLCK
		})
	}
	holder := w.contend("fcntl", w.a)
	w.held("the holder", holder)
	l, err := record(b, unix.F_GETLK, unix.F_RDLCK, 3, 1)
	if err != nil || l.Type != unix.F_WRLCK || l.Start != 0 || l.Len != 0 || l.Pid != 0 {
		t.Errorf("on another machine F_GETLK says %+v, %v", l, err)
	}
	l, err = record(openFile(t, w.a, os.O_RDWR), unix.F_GETLK, unix.F_RDLCK, 3, 1)
	if err != nil || int(l.Pid) != holder.cmd.Process.Pid {
		t.Errorf("on the same machine F_GETLK says %+v, %v; want process %d", l, err, holder.cmd.Process.Pid)
	}
	if _, err := record(b, unix.F_SETLK, unix.F_RDLCK, 9, 1); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("F_SETLK: %v", err)
	}
	must(t, holder.in.Close())
	free("the lock of a process that ended")

	reader, another := openFile(t, w.a, os.O_RDONLY), openFile(t, w.a, os.O_RDONLY)
	_, err = record(reader, unix.F_SETLK, unix.F_RDLCK, 0, 5)
	must(t, err)
	must(t, another.Close()) // POSIX: any descriptor
	if l, err := record(b, unix.F_GETLK, unix.F_WRLCK, 0, 0); err != nil || l.Type != unix.F_UNLCK {
		t.Errorf("after close F_GETLK says %+v, %v", l, err)
	}
	ofd := openFile(t, w.a, os.O_RDWR)
	_, err = record(ofd, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 5)
	must(t, err)
	must(t, reader.Close())
	if l, err := record(b, unix.F_GETLK, unix.F_WRLCK, 0, 0); err != nil || l.Type != unix.F_WRLCK || l.Len != 5 {
		t.Errorf("F_GETLK says %+v, %v", l, err)
	}
	must(t, ofd.Close())
	free("the lock of an open file")
}

// Two processes that wait for each other across machines: one is told.
func TestLocksDeadlock(t *testing.T) {
	w := newLockWorld(t)
	a, b := openFile(t, w.a, os.O_RDWR), openFile(t, w.b, os.O_RDWR)
	_, err := record(a, unix.F_SETLK, unix.F_WRLCK, 0, 1)
	must(t, err)
	_, err = record(b, unix.F_SETLK, unix.F_WRLCK, 1, 1)
	must(t, err)
	got := make(chan error, 1)
	go func() {
		_, err := record(a, unix.F_SETLKW, unix.F_WRLCK, 1, 1)
		got <- err
	}()
	w.queued(0, 1)
	if _, err := record(b, unix.F_SETLKW, unix.F_WRLCK, 0, 1); !errors.Is(err, unix.EDEADLK) {
		t.Errorf("F_SETLKW: %v", err)
	}
	must(t, b.Close())
	must(t, <-got)
}

// Who has lost what he had locked is told so until he closes the file.
func TestLocksLost(t *testing.T) {
	w := newLockWorld(t)
	a := openFile(t, w.a, os.O_RDWR)
	must(t, unix.Flock(int(a.Fd()), unix.LOCK_EX))
	w.lockers[0].Fenced()
	for _, how := range []int{unix.LOCK_EX, unix.LOCK_SH | unix.LOCK_NB, unix.LOCK_UN} {
		if err := unix.Flock(int(a.Fd()), how); !errors.Is(err, unix.EIO) {
			t.Errorf("flock %d: %v", how, err)
		}
	}
	must(t, a.Close())
	// The kernel tells of the end a little later.
	err := unix.EIO
	for end := time.Now().Add(10 * time.Second); err == unix.EIO && time.Now().Before(end); {
		err, _ = unix.Flock(int(openFile(t, w.a, os.O_RDWR).Fd()), unix.LOCK_EX).(unix.Errno)
	}
	if err != 0 {
		t.Error(err)
	}
}

// Special files have no locks where those of files are a service's.
func TestLocksSpecial(t *testing.T) {
	w := newLockWorld(t)
	f := openFile(t, filepath.Join(filepath.Dir(w.a), "cluster", "version"), os.O_RDONLY)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.ENOLCK) {
		t.Errorf("flock: %v", err)
	}
}
