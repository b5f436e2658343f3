package run

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A shim is one task's keeper, see the package comment.
type shim struct {
	control *os.File
	order   order
	group   *group
	pid     int // the task's first process
	end     news
	ended   bool // the first process has
	killing bool
}

// shimName is what a shim is called: by it the program knows that it is one.
const shimName = "dos-shim"

// A task begins with this program being started once more, and most of what that
// costs is the initialization of packages that a shim has no use for. This one's
// comes early, since packages are initialized in the order of their paths as far as
// their imports allow. Nothing else may run in the process.
func init() {
	if filepath.Base(os.Args[0]) == shimName {
		shimMain()
		os.Exit(0)
	}
}

// shimMain is a shim's life.
func shimMain() {
	// The kernel kills the task when the thread that started it ends.
	runtime.LockOSThread()
	s := &shim{control: os.NewFile(controlFD, "control")}
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dos:", err)
		os.Exit(1)
	}
}

func (s *shim) run() error {
	// Nobody but the Host ends it. What is ignored would be ignored by the task too;
	// what is caught is not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	// What else this process was given, by whomever, is not for the task.
	if err := unix.CloseRange(controlFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	in := lines(s.control)
	if !in.Scan() {
		return nil // the Host thought better of it, or is gone
	}
	if err := json.Unmarshal(in.Bytes(), &s.order); err != nil {
		return err
	}
	alarm, err := newAlarm(s.order.Until)
	if err != nil {
		return err
	}
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	if err := s.start(); err != nil {
		return send(s.control, news{Failed: err.Error(), Final: errors.Is(err, ErrStart)})
	}
	if err := send(s.control, news{PID: s.pid}); err != nil {
		s.killing = true
	}
	commands := make(chan command)
	go listen(in, commands)
	return s.keep(commands, alarm, dead)
}

// listen passes the Host's commands on; the channel is closed when the Host is gone. It
// ends with the process.
func listen(in *bufio.Scanner, commands chan<- command) {
	defer close(commands)
	for in.Scan() {
		var c command
		if json.Unmarshal(in.Bytes(), &c) == nil {
			commands <- c
		}
	}
}

// start starts the task's first process.
func (s *shim) start() error {
	o := &s.order
	attr := &syscall.ProcAttr{
		Dir: o.Dir, Env: o.Env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	argv := o.Argv
	if o.Script {
		attr.Files = append(attr.Files, scriptFD)
		argv = append(argv[:len(argv):len(argv)], fmt.Sprintf("/proc/self/fd/%d", taskScriptFD))
	}
	if u := o.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
		unix.Umask(int(u.Umask))
	}
	var err error
	if s.group, err = openGroup(o.Group, nil, false); err != nil {
		return err
	}
	if dir, ok := o.Group[""]; ok {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
		defer unix.Close(fd)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
	} else if err := o.Group.enter(); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	argv = o.Bare.within(argv)
	if s.pid, err = syscall.ForkExec(argv[0], argv, attr); err != nil {
		return s.why(argv[0], err)
	}
	if err := o.Group.parent().enter(); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return s.quiet()
}

// why says what of the program, its user and its directory it was.
func (s *shim) why(program string, err error) error {
	if dir := s.order.Dir; dir != "" {
		f, e := OpenAs(s.order.User, dir+"/.", unix.O_PATH|unix.O_DIRECTORY, 0)
		if e != nil {
			return fmt.Errorf("%w in %s: %w", kind(e), dir, errno(e))
		}
		f.Close()
	}
	return fmt.Errorf("%w %s: %w", kind(err), program, err)
}

var errTrouble = errors.New("cannot start now")

// kind tells what is the program's fault from what is this machine's at the moment.
func kind(err error) error {
	for _, now := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOTCONN, syscall.EIO} {
		if errors.Is(err, now) {
			return errTrouble
		}
	}
	return ErrStart
}

// errno is the error number in err, for a text that names the file itself.
func errno(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

// quiet lets go of the task's files: who reads its output sees the end when the
// task's processes have closed it.
func (s *shim) quiet() error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return err
		}
	}
	if s.order.Script {
		return unix.Close(scriptFD)
	}
	return nil
}

// keep does what the Host says until nothing of the task is left.
func (s *shim) keep(commands <-chan command, alarm *alarm, dead <-chan os.Signal) error {
	over := alarm.wait()
	var again <-chan time.Time
	for {
		if childless := s.reap(); childless && s.ended {
			break
		}
		if s.ended {
			s.killing = true // what it left behind
		}
		if s.killing {
			if s.kill() {
				break
			}
			again = time.After(killAgain)
		}
		select {
		case <-dead:
		case <-again:
		case <-over:
			s.killing, s.end.Overdue, over = true, !s.ended, nil
		case c, ok := <-commands:
			if !ok {
				s.killing, commands = true, nil
				continue
			}
			s.obey(c, alarm)
		}
	}
	s.end.Ended = true
	var spent unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &spent); err == nil {
		s.end.CPU = time.Duration(spent.Utime.Nano() + spent.Stime.Nano())
		s.end.Memory = spent.Maxrss << 10
	}
	return send(s.control, s.end)
}

func (s *shim) obey(c command, alarm *alarm) {
	if c.Until != 0 && !s.end.Overdue {
		alarm.set(c.Until)
	}
	if c.Freeze != nil {
		s.freeze(*c.Freeze)
	}
	if c.Signal != 0 {
		signalAll(s.all(), c.Signal)
	}
	if c.Kill {
		s.killing = true
	}
}

// all lists the task's processes.
func (s *shim) all() []int {
	if s.group != nil {
		return s.group.pids()
	}
	return pids(below(os.Getpid()))
}

func (s *shim) freeze(on bool) {
	switch {
	case s.group != nil && s.order.Group.freezes():
		_ = s.group.freeze(on) // a group that cannot be frozen runs on
	case on:
		signalAll(s.all(), syscall.SIGSTOP)
	default: // who stopped by itself is woken too
		signalAll(s.all(), syscall.SIGCONT)
	}
}

const (
	// killTry is how long one attempt to kill everything lasts. Afterwards the
	// shim looks at what else there is, and tries again after killAgain.
	killTry   = time.Second
	killAgain = 100 * time.Millisecond
)

// kill kills all, and reports whether nothing is left.
func (s *shim) kill() bool {
	if s.group != nil {
		s.group.kill(killTry)
	}
	// Also what it moved out of its group, if it may do that.
	for began := time.Now(); !s.reap(); time.Sleep(killPause) {
		if time.Since(began) > killTry {
			return false
		}
		list := pids(below(os.Getpid()))
		signalAll(list, syscall.SIGSTOP) // who is stopped starts no more
		signalAll(list, syscall.SIGKILL)
	}
	return true
}

// reap takes the status of all that died, and reports whether there is no child left: then
// there is nothing left at all, for whoever lost its parent became a child.
func (s *shim) reap() (childless bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return true
		case pid <= 0:
			return false
		case pid != s.pid:
			continue
		}
		s.ended = true
		if status.Signaled() {
			s.end.Signal = status.Signal()
		} else {
			s.end.Code = status.ExitStatus()
		}
	}
}

// An alarm goes off at an hour of boottime.
type alarm struct{ file *os.File }

func newAlarm(at time.Duration) (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timer: %w", err)
	}
	a := &alarm{os.NewFile(uintptr(fd), "alarm")}
	a.set(at)
	return a, nil
}

// set puts the alarm off. One in the past goes off at once; 0 is never.
func (a *alarm) set(at time.Duration) {
	value := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	control(a.file, func(fd int) { _ = unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &value, nil) })
}

// wait returns a channel that is closed when the alarm has gone off.
func (a *alarm) wait() <-chan struct{} {
	over := make(chan struct{})
	go func() { // ends with the process
		var count [8]byte
		if _, err := a.file.Read(count[:]); err == nil {
			close(over)
		}
	}()
	return over
}

// control calls do with the descriptor of f, which stays as it is.
func control(f *os.File, do func(fd int)) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}
