package agent

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dos/internal/run"
	"dos/meta/task"
)

// stdinPipe is what stdin= says when the task reads what is written to ID/stdin. That
// file has nothing for other tasks (package procfs/tasks).
const stdinPipe = "-"

const (
	// path is where programs are found that are named without one.
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// maxProcesses is how many processes and threads a task may have: more than a
	// build or a large program needs, and few enough that a fork bomb leaves the
	// machine usable.
	maxProcesses = 4096
	// gpuKind is the counted resource whose units have numbers.
	gpuKind = "gpu"
)

// spec says how an attempt is run. One that is run.ErrStart means that it can be
// run nowhere. What is written to the task's stdin in the tree the task reads there
// itself: nobody waits for it before the task does.
func (a *Agent) spec(t task.Attempt, gpus []int) (s run.Spec, err error) {
	s = run.Spec{
		ID: t.ID.String() + "." + strconv.FormatUint(t.Token, 10), Argv: t.Spec.Args, Script: t.Spec.Script,
		Limits: run.Limits{CPU: float64(t.Spec.Need.CPU) / 1000, Memory: t.Spec.Need.Mem, Processes: maxProcesses},
		Dir:    a.tree.path(t.Spec.Cwd, ""),
	}
	if len(s.Argv) > 0 {
		s.Script = nil
	}
	if self := os.Geteuid(); self == 0 {
		s.User = &run.User{UID: t.Owner.UID, GID: t.Owner.GID, Groups: t.Owner.Groups, Umask: t.Owner.Umask}
	} else if uint32(self) != t.Owner.UID {
		return s, fmt.Errorf("%w: this machine runs tasks of user %d alone: its dos is not root's", run.ErrStart, self)
	}
	s.Mark = fmt.Sprintf("DOS_RUN=%s.%d", a.cfg.Key, t.Token)
	s.Env = append(a.environment(t, gpus), s.Mark)
	if t.Spec.Stdin != "" && t.Spec.Stdin != stdinPipe {
		s.Stdin, err = run.OpenAs(s.User, a.tree.path(t.Spec.Cwd, t.Spec.Stdin), unix.O_RDONLY, 0)
	} else if s.Stdin, err = os.Open(filepath.Join(a.cfg.Mount, tasks, t.ID.String(), "stdin")); errors.Is(err, os.ErrNotExist) {
		s.Stdin, err = nil, nil // the tree has none
	}
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		err = fmt.Errorf("%w: %w", run.ErrStart, err)
	}
	return s, fmt.Errorf("stdin: %w", err)
}

// environment is little: who it is and what it was given, and what the task says.
func (a *Agent) environment(t task.Attempt, gpus []int) []string {
	env := map[string]string{"PATH": path, "HOME": "/", "SHELL": "/bin/sh", "LANG": "C.UTF-8"}
	if u, err := user.LookupId(strconv.FormatUint(uint64(t.Owner.UID), 10)); err == nil {
		env["HOME"], env["USER"], env["LOGNAME"] = u.HomeDir, u.Username, u.Username
	}
	for _, one := range t.Spec.Env {
		name, value, _ := strings.Cut(one, "=")
		env[name] = value
	}
	for name, value := range map[string]string{
		"DOS_TASK_ID": t.ID.String(), "DOS_ATTEMPT": strconv.Itoa(t.Number), "DOS_TOKEN": strconv.FormatUint(t.Token, 10),
		"DOS_NODE": a.cfg.Offer.Node, "DOS_MOUNT": a.cfg.Mount, "DOS_TASK_NAME": t.Spec.Name,
		"DOS_CPUS": strconv.FormatFloat(float64(t.Spec.Need.CPU)/1000, 'f', -1, 64),
	} {
		env[name] = value
	}
	if i, ok := t.ID.Index(); ok {
		env["DOS_ARRAY_ID"], env["DOS_ARRAY_INDEX"] = t.ID.Array().String(), strconv.Itoa(i)
	}
	if a.cfg.Offer.Have.Count[gpuKind] > 0 {
		// Who was given none sees none.
		env["CUDA_VISIBLE_DEVICES"] = numbers(gpus)
		env["ROCR_VISIBLE_DEVICES"] = numbers(gpus)
	}
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

func numbers(list []int) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = strconv.Itoa(n)
	}
	return strings.Join(text, ",")
}

// devices are the units of a resource that have numbers.
type devices struct {
	mu    *sync.Mutex
	taken []bool // guarded by mu
}

func newDevices(have map[string]int64) devices {
	return devices{new(sync.Mutex), make([]bool, have[gpuKind])}
}

// take takes as many as are needed: the service assigns no more than there are.
func (d devices) take(need map[string]int64) (list []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.taken {
		if int64(len(list)) < need[gpuKind] && !d.taken[i] {
			d.taken[i] = true
			list = append(list, i)
		}
	}
	return list
}

func (d devices) give(list []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range list {
		d.taken[i] = false
	}
}

// path is where a file of the tree is on this machine: one that does not begin with "/"
// is below the directory, both being of the tree.
func (t *tree) path(dir, name string) string {
	if !strings.HasPrefix(name, "/") {
		name = filepath.Join("/", dir, name)
	}
	return filepath.Join(t.mount, name)
}
