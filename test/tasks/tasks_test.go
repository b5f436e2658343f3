// Package tasks has machines run tasks, as a user submits them, while what runs them is
// killed, stopped and cut off.
package tasks

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

const (
	// soon bounds what takes a moment, on a machine that is busy.
	soon = 30 * time.Second
	// sessionTime is how long a runner that is not heard of keeps what it has.
	sessionTime = 15 * time.Second
)

// submit writes a script to tasks/new of a mount, and returns the task's directory.
func submit(t *testing.T, point, script string) string {
	t.Helper()
	var id string
	// A mount that is just usable may have to wait for its cluster.
	cluster.Await(t, soon, func() error {
		f, err := os.OpenFile(filepath.Join(point, "tasks", "new"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteString(script + "\n"); err != nil {
			return err
		}
		text := make([]byte, 64)
		n, err := f.Read(text)
		id = strings.TrimSpace(string(text[:n]))
		return err
	})
	return filepath.Join(point, "tasks", id)
}

// field is what the status of a task says.
func field(dir, key string) string {
	text, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// awaitField waits until the status of a task says something.
func awaitField(t *testing.T, dir, key, want string, limit time.Duration) {
	t.Helper()
	cluster.Await(t, limit, func() error {
		if got := field(dir, key); got != want {
			return fmt.Errorf("%s is %q, want %q; the task:\n%s", key, got, want, read(filepath.Join(dir, "status")))
		}
		return nil
	})
}

// awaitText waits until a file has a text in it.
func awaitText(t *testing.T, path, want string, limit time.Duration) {
	t.Helper()
	cluster.Await(t, limit, func() error {
		if got := read(path); !strings.Contains(got, want) {
			return fmt.Errorf("%s has no %q: %q", path, want, got)
		}
		return nil
	})
}

// runner is the process that runs the tasks of a data directory.
func runner(t *testing.T, data string) int {
	t.Helper()
	var pid int
	cluster.Await(t, soon, func() error {
		locks, _ := filepath.Glob(filepath.Join(data, "run", "*", "lock"))
		for _, lock := range locks {
			if n, _ := fmt.Sscanf(read(lock), "process %d", &pid); n == 1 && lives(pid) {
				return nil
			}
		}
		return fmt.Errorf("no runner: %v", locks)
	})
	return pid
}

func lives(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(status), "\nState:\tZ")
}

// script is a task that says in a file outside the tree when one of it runs beside
// another, and goes on until there is a file go.
func script(dir string) string {
	return fmt.Sprintf(`exec 9>%[1]s/lock
flock -n 9 || echo "two at once" >> %[1]s/trace
echo "attempt $DOS_ATTEMPT on $DOS_NODE process $$" >> %[1]s/trace
i=0
while ! test -e %[1]s/go; do i=$((i + 1)); echo line $i; sleep 0.05; done
echo end`, dir)
}

// process is the process of an attempt that a script told of.
func process(t *testing.T, dir string, attempt int) (pid int) {
	t.Helper()
	prefix := fmt.Sprintf("attempt %d on ", attempt)
	awaitText(t, filepath.Join(dir, "trace"), prefix, 2*sessionTime+soon)
	_, after, _ := strings.Cut(read(filepath.Join(dir, "trace")), prefix)
	words := strings.Fields(after)
	pid, err := strconv.Atoi(words[2])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// finish lets the script end, and holds its task to having ended well, with all
// that it wrote, in so many attempts.
func finish(t *testing.T, task, dir string, attempts int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitField(t, task, "state", "done", soon)
	if got := field(task, "attempt"); got != fmt.Sprint(attempts) {
		t.Errorf("it took attempt %s, want %d; trace:\n%s", got, attempts, read(filepath.Join(dir, "trace")))
	}
	if trace := read(filepath.Join(dir, "trace")); strings.Contains(trace, "two at once") {
		t.Errorf("it ran twice at once:\n%s", trace)
	}
	lines := strings.Split(strings.TrimSpace(read(filepath.Join(task, "stdout"))), "\n")
	last := 0
	for _, line := range lines[:len(lines)-1] {
		if line == "end" && attempts > 1 { // of one that was not heard of
			last = 0
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(line, "line "))
		if err != nil || n != last+1 && (n != 1 || attempts == 1) {
			t.Fatalf("after line %d of its output comes %q", last, line)
		}
		last = n
	}
	if lines[len(lines)-1] != "end" {
		t.Errorf("its output ends with %q", lines[len(lines)-1])
	}
}

func start(t *testing.T) *cluster.Mount {
	t.Helper()
	cluster.NeedFuse(t)
	cluster.Need(t, "flock")
	return cluster.Start(t, filepath.Join(cluster.Dir(t), "data"))
}

// The first five minutes.
func TestHello(t *testing.T) {
	m := start(t)
	if r := cluster.Run(t, "bash", "-c", "echo 'hostname' > "+m.Path("tasks", "new")); r.Code != 0 {
		t.Fatalf("submitting: %s", r.Stderr)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := read(m.Path("tasks", "1", "wait")); strings.TrimSpace(got) != "0" {
		t.Errorf("it ended with %q\n%s", got, read(m.Path("tasks", "1", "status")))
	}
	if got := read(m.Path("tasks", "1", "stdout")); got != host+"\n" {
		t.Errorf("it said %q", got)
	}
}

// The task of a machine that is killed and started again runs on.
func TestMountKilled(t *testing.T) {
	m := start(t)
	dir := cluster.Dir(t)
	task := submit(t, m.Point, script(dir))
	awaitText(t, filepath.Join(task, "stdout"), "line 5\n", soon)
	m.Kill(t)
	m.Again(t)
	seen := read(filepath.Join(task, "stdout"))
	awaitText(t, filepath.Join(task, "stdout"), fmt.Sprintf("line %d\n", strings.Count(seen, "\n")+20), soon)
	finish(t, task, dir, 1)
}

// When the runner is killed its tasks die with it, and run again.
func TestRunnerKilled(t *testing.T) {
	m := start(t)
	dir := cluster.Dir(t)
	task := submit(t, m.Point, script(dir))
	first := process(t, dir, 1)
	if err := syscall.Kill(runner(t, m.Data), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	process(t, dir, 2)
	if lives(first) {
		t.Error("the first attempt lives")
	}
	finish(t, task, dir, 2)
}

// A runner that stands still has no tasks any more when their time is over, and they run
// again with another, in whose place it does not come back.
func TestRunnerStopped(t *testing.T) {
	m := start(t)
	dir := cluster.Dir(t)
	task := submit(t, m.Point, script(dir))
	first := process(t, dir, 1)
	pid := runner(t, m.Data)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	cluster.Await(t, sessionTime, func() error {
		if lives(first) {
			return fmt.Errorf("process %d lives", first)
		}
		return nil
	})
	process(t, dir, 2)
	if lives(pid) {
		t.Error("the runner that stood still is there")
	}
	finish(t, task, dir, 2)
}

// Unmounting an embedded cluster leaves no process behind; its tasks run again when it is
// there again.
func TestUnmounted(t *testing.T) {
	m := start(t)
	dir := cluster.Dir(t)
	task := submit(t, m.Point, script(dir))
	first, pid := process(t, dir, 1), runner(t, m.Data)
	m.Stop(t)
	if lives(first) || lives(pid) {
		t.Errorf("the task lives: %v, the runner: %v", lives(first), lives(pid))
	}
	m.Again(t)
	process(t, dir, 2)
	finish(t, task, dir, 2)
}

// Where a user has no cgroups, users and administrators see it, and tasks run.
func TestOrdinaryUser(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t) // to be another
	r := cluster.RunOrdinary(t, "/bin/sh", "-c", `
$2/dosmount --data $1/data $1/m >/dev/null & mount=$!
until test -e $1/m/tasks/new; do sleep 0.05; done
echo 'id -u; sleep 0.1' >$1/m/tasks/new
cat $1/m/tasks/1/wait@30s $1/m/tasks/1/stdout
cat $1/m/nodes/local/status
$2/dosctl --data $1/data status
kill $mount; wait $mount`, "sh", ordinaryDir(t), filepath.Dir(cluster.Bin("dosmount")))
	for _, want := range []string{"0\n65534\n", "\nlacks cpu cpuacct memory pids freezer (", "not held to all limits: no cgroups for cpu "} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("it lacks %q: %s\n%s", want, r.Stdout, r.Stderr)
		}
	}
}

// ordinaryDir is a directory of one's own for a user without rights.
func ordinaryDir(t *testing.T) string {
	t.Helper()
	dir := cluster.Dir(t)
	if err := os.Chown(dir, cluster.Nobody, cluster.Nobody); err != nil {
		t.Fatal(err)
	}
	return dir
}
