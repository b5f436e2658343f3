package run

import (
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

// A shim keeps tasks, one after the other, see the package comment.
type shim struct {
	host     *peer
	messages <-chan message // closed when the Host is gone
	dead     <-chan os.Signal
	umask    int // as it was in the beginning
}

// A keeper is a shim with a task.
type keeper struct {
	*shim
	order   order
	files   []*os.File // the task's three, and its script if it has one
	group   *group
	pid     int // the task's first process
	end     news
	ended   bool // the first process has
	killing bool
}

// shimName is what a shim is called: by it the program knows that it is one.
const shimName = "dos-shim"

// A shim is this program started once more, and most of what that
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
	if err := runShim(os.NewFile(controlFD, "control")); err != nil {
		fmt.Fprintln(os.Stderr, "dos:", err)
		os.Exit(1)
	}
}

func runShim(control *os.File) error {
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
	umask := unix.Umask(0)
	unix.Umask(umask)
	dead, messages := make(chan os.Signal, 1), make(chan message)
	signal.Notify(dead, syscall.SIGCHLD)
	host := newPeer(control)
	go listen(host, messages)
	s := &shim{host: host, messages: messages, dead: dead, umask: umask}
	for m := range messages {
		if m.Order == nil {
			continue // it came too late for the task before
		}
		k := &keeper{shim: s, order: *m.Order, files: m.files}
		if more, err := k.run(); err != nil || !more {
			return err
		}
	}
	return nil
}

// listen passes on what the Host says. It ends with the process.
func listen(host *peer, messages chan<- message) {
	defer close(messages)
	for {
		var m message
		if host.next(&m) != nil {
			return
		}
		if m.Order != nil {
			m.files = host.take()
		}
		messages <- m
	}
}

// run has the task from its start to its end, and says whether the shim is good for another.
func (k *keeper) run() (more bool, err error) {
	alarm, err := newAlarm(k.order.Until)
	if err != nil {
		return false, err
	}
	defer alarm.file.Close()
	err = k.start()
	for _, f := range k.files { // who reads its output sees the end when the task's processes have closed it
		f.Close()
	}
	if err != nil {
		return false, k.host.send(news{Failed: err.Error(), Final: errors.Is(err, ErrStart)})
	}
	if err := k.host.send(news{PID: k.pid}); err != nil {
		k.killing = true
	}
	k.keep(alarm)
	return true, k.host.send(k.end)
}

// start starts the task's first process.
func (k *keeper) start() error {
	o := &k.order
	attr := &syscall.ProcAttr{Dir: o.Dir, Env: o.Env, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}}
	for _, f := range k.files {
		attr.Files = append(attr.Files, f.Fd())
	}
	argv := o.Argv
	if o.Script {
		argv = append(argv[:len(argv):len(argv)], fmt.Sprintf("/proc/self/fd/%d", taskScriptFD))
	}
	if u := o.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
		unix.Umask(int(u.Umask))
	} else {
		unix.Umask(k.umask)
	}
	var err error
	if k.group, err = openGroup(o.Group, nil, false); err != nil {
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
	if k.pid, err = syscall.ForkExec(argv[0], argv, attr); err != nil {
		return k.why(argv[0], err)
	}
	if err := o.Group.parent().enter(); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// why says what of the program, its user and its directory it was.
func (k *keeper) why(program string, err error) error {
	if dir := k.order.Dir; dir != "" {
		f, e := OpenAs(k.order.User, dir+"/.", unix.O_PATH|unix.O_DIRECTORY, 0)
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

// keep does what the Host says until nothing of the task is left.
func (k *keeper) keep(alarm *alarm) {
	over := alarm.wait()
	messages := k.messages
	var again <-chan time.Time
	for {
		if childless := k.reap(); childless && k.ended {
			break
		}
		if k.ended {
			k.killing = true // what it left behind
		}
		if k.killing {
			if k.kill() {
				break
			}
			again = time.After(killAgain)
		}
		select {
		case <-k.dead:
		case <-again:
		case <-over:
			k.killing, k.end.Overdue, over = true, !k.ended, nil
		case m, ok := <-messages:
			if !ok {
				k.killing, messages = true, nil
				continue
			}
			k.obey(m, alarm)
		}
	}
	k.end.Ended = true
}

func (k *keeper) obey(c message, alarm *alarm) {
	if c.Until != 0 && !k.end.Overdue {
		alarm.set(c.Until)
	}
	if c.Freeze != nil {
		k.freeze(*c.Freeze)
	}
	if c.Signal != 0 {
		signalAll(k.all(), c.Signal)
	}
	if c.Kill {
		k.killing = true
	}
}

// all lists the task's processes.
func (k *keeper) all() []int {
	if k.group != nil {
		return k.group.pids()
	}
	return pids(below(os.Getpid()))
}

func (k *keeper) freeze(on bool) {
	switch {
	case k.group != nil && k.order.Group.freezes():
		_ = k.group.freeze(on) // a group that cannot be frozen runs on
	case on:
		signalAll(k.all(), syscall.SIGSTOP)
	default: // who stopped by itself is woken too
		signalAll(k.all(), syscall.SIGCONT)
	}
}

const (
	// killTry is how long one attempt to kill everything lasts. Afterwards the
	// shim looks at what else there is, and tries again after killAgain.
	killTry   = time.Second
	killAgain = 100 * time.Millisecond
)

// kill kills all, and reports whether nothing is left.
func (k *keeper) kill() bool {
	if k.group != nil {
		k.group.kill(killTry)
	}
	// Also what it moved out of its group, if it may do that.
	for began := time.Now(); !k.reap(); time.Sleep(killPause) {
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
func (k *keeper) reap() (childless bool) {
	for {
		var status syscall.WaitStatus
		var spent syscall.Rusage // with what it has reaped itself
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &spent)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return true
		case pid <= 0:
			return false
		}
		k.end.CPU += time.Duration(spent.Utime.Nano() + spent.Stime.Nano())
		k.end.Memory = max(k.end.Memory, spent.Maxrss<<10)
		if pid != k.pid {
			continue
		}
		k.ended = true
		if status.Signaled() {
			k.end.Signal = status.Signal()
		} else {
			k.end.Code = status.ExitStatus()
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
