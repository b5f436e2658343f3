package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what a Host is. The zero value of an optional field means the default
// beside it.
type Config struct {
	Dir string // what runs is noted here; made if missing. One Host a directory
	All Limits // of all tasks together; none
	// Bare does without cgroups.
	Bare bool
}

// A Host starts programs. Its methods may be called concurrently.
type Host struct {
	cfg    Config
	groups *groups
	lacks  []string

	starting sync.RWMutex // held to read while a shim is started
	mu       sync.Mutex
	shims    map[int]bool // that are this process's children; guarded by mu
	idle     []*keptShim  // without a task, the one that is used next last; guarded by mu
	closed   bool         // guarded by mu
}

// Open returns the Host of a directory. It kills what an earlier one left there,
// and returns when that is gone.
func Open(ctx context.Context, c Config) (*Host, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(c.Dir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	h := &Host{cfg: c, shims: make(map[int]bool)}
	if c.Bare {
		h.groups, h.lacks = &groups{}, controllers
	} else {
		h.groups, h.lacks = openGroups(groupName(dir), c.All)
	}
	return h, h.clear(ctx)
}

// Lacks says which of cpu, cpuacct, memory, pids and freezer no cgroup does, and
// why. Memory and the number of processes are then limited process by process, a
// freeze is a SIGSTOP, and cpu is not limited.
func (h *Host) Lacks() string { return strings.Join(h.lacks, " ") }

// Close ends the shims, and removes the cgroup of all tasks, of which none runs any more.
func (h *Host) Close() error {
	h.mu.Lock()
	idle := h.idle
	h.idle, h.closed = nil, true
	h.mu.Unlock()
	for _, s := range idle {
		h.end(s)
	}
	g, err := openGroup(h.groups.base, nil, false)
	if err != nil || g == nil {
		return err
	}
	return g.remove()
}

// A record is what is noted of a task: enough to find all that comes of it.
type record struct {
	Shim    int    // its process
	Started uint64 // proc.started of it
	Group   groupPaths
	Mark    string
}

const recordSuffix = ".task"

func (h *Host) recordPath(id string) string { return filepath.Join(h.cfg.Dir, id+recordSuffix) }

// note writes a record. It is for this run of the machine, so it need not be synced.
func (h *Host) note(id string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := h.recordPath(id)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// clear kills what an earlier Host left.
func (h *Host) clear(ctx context.Context) error {
	files, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		id, isRecord := strings.CutSuffix(f.Name(), recordSuffix)
		switch {
		case strings.HasSuffix(f.Name(), recordSuffix+".new"):
		case isRecord:
			var r record
			text, err := os.ReadFile(h.recordPath(id))
			if err != nil {
				return err
			}
			if err := json.Unmarshal(text, &r); err != nil {
				slog.Warn("run: a record cannot be read", "task", id, "err", err)
			} else if err := r.kill(ctx); err != nil {
				return fmt.Errorf("task %s of an earlier runner: %w", id, err)
			}
		default:
			continue
		}
		if err := os.Remove(filepath.Join(h.cfg.Dir, f.Name())); err != nil {
			return err
		}
	}
	for _, id := range h.groups.tasksOf() { // a record may be gone before its group
		if err := killGroup(ctx, h.groups.paths(id)); err != nil {
			return err
		}
	}
	return nil
}

// kill kills what a record names, and returns when it is gone.
func (r record) kill(ctx context.Context) error {
	for {
		// The shim kills all when it finds its Host gone, so it is asked last.
		shim, alive := stat(r.Shim)
		alive = alive && !shim.dead && shim.started == r.Started
		var left []int
		if alive {
			left = pids(below(r.Shim))
		}
		left = append(left, marked(r.Mark)...)
		if len(left) == 0 && !alive {
			break
		}
		signalAll(left, syscall.SIGSTOP)
		signalAll(left, syscall.SIGKILL)
		r.Group.thaw()
		if alive && len(left) == 0 {
			_ = syscall.Kill(r.Shim, syscall.SIGKILL)
		}
		if err := pause(ctx, killAgain/10); err != nil {
			return fmt.Errorf("%d processes do not die: %w", len(left), err)
		}
	}
	return killGroup(ctx, r.Group)
}

// killGroup kills what is in a cgroup, and removes it.
func killGroup(ctx context.Context, paths groupPaths) error {
	for c, dir := range paths {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			delete(paths, c)
		}
	}
	g, err := openGroup(paths, nil, false)
	if err != nil || g == nil {
		return err
	}
	for !g.kill(killTry) {
		if err := pause(ctx, killAgain); err != nil {
			return fmt.Errorf("%d processes do not die: %w", len(g.pids()), err)
		}
	}
	return g.remove()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start starts a program, and returns when it runs. An error that is ErrStart is for
// good; others may be over in a while.
func (h *Host) Start(s Spec) (_ *Process, err error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	o := order{Argv: s.Argv, Env: s.Env, Dir: s.Dir, User: s.User, Until: s.Until, Group: h.groups.paths(s.ID), Bare: h.groups.bare(s.Limits)}
	if o.Dir == "" {
		o.Dir = "/"
	}
	if s.User != nil && os.Geteuid() != 0 && int(s.User.UID) == os.Geteuid() {
		o.User = nil // it is who we are, and more we may not
	}
	if o.Argv, o.Script, err = program(s); err != nil {
		return nil, err
	}
	p := &Process{host: h, id: s.ID, began: time.Now(), done: make(chan struct{})}
	if p.shim, err = h.shim(); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		p.drop()
		if p.group != nil {
			if err := p.group.remove(); err != nil {
				slog.Warn("run: left for the next start", "task", s.ID, "err", err)
			}
		}
		os.Remove(h.recordPath(s.ID))
	}()
	// The record is there before anything of the task is.
	if err := h.note(s.ID, record{Shim: p.shim.process.Pid, Started: p.shim.started, Group: o.Group, Mark: s.Mark}); err != nil {
		return nil, err
	}
	if p.group, err = h.groups.make(s.ID, s.Limits); err != nil {
		return nil, err
	}
	if err := p.order(o, s); err != nil {
		return nil, fmt.Errorf("%w: %w", errTrouble, err)
	}
	if err := p.started(); err != nil {
		return nil, err
	}
	go p.follow() // ends with the task, which closes p.done
	return p, nil
}

// order has the shim start the program.
func (p *Process) order(o order, s Spec) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []*os.File{null, null, null}
	for i, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if f != nil {
			files[i] = f
		}
	}
	if o.Script {
		text, err := sealed(s.Script)
		if err != nil {
			return err
		}
		defer text.Close()
		files = append(files, text)
	}
	if err := p.shim.host.file.SetWriteDeadline(time.Now().Add(startWait)); err != nil {
		return err
	}
	return p.shim.host.send(message{Order: &o}, files...)
}

// program is what to start, and whether the script goes with it.
func program(s Spec) (argv []string, script bool, err error) {
	if len(s.Script) > 0 {
		argv, err = interpreter(s.Script)
		return argv, true, err
	}
	name := s.Argv[0]
	if !strings.Contains(name, "/") {
		if name = inPath(name, s.Env); name == "" {
			return nil, false, fmt.Errorf("%w %s: it is nowhere in PATH", ErrStart, s.Argv[0])
		}
	}
	return append([]string{name}, s.Argv[1:]...), false, nil
}

// inPath finds a program as a shell with that environment does.
func inPath(name string, env []string) string {
	path := ""
	for _, e := range env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			path = p
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); filepath.IsAbs(dir) {
			if _, err := exec.LookPath(file); err == nil {
				return file
			}
		}
	}
	return ""
}

// sealed is a file without a name that nobody can change.
func sealed(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "script")
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	_, err = f.Seek(0, 0)
	return f, err
}
