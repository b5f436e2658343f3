package tasks

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

// The task of a machine that stands still, whole, runs elsewhere meanwhile. When the machine
// goes on its attempt ends at once, and nothing that it does then comes into the tree, also
// where those go on last who are to kill it.
func TestPaused(t *testing.T) {
	c, points := three(t)
	dir := cluster.Dir(t)
	task := submit(t, points["a"], fmt.Sprintf(`trap '' TERM
while ! test -e %[1]s/go; do
	echo $DOS_ATTEMPT; done=no; at=$(date +%%s%%N)
	echo $DOS_ATTEMPT 2>/dev/null >>$DOS_MOUNT/said && done=yes
	echo $DOS_ATTEMPT $at $done >>%[1]s/beats
	sleep 0.02
done`, dir))
	beats := filepath.Join(dir, "beats")
	awaitText(t, beats, "1 ", soon)
	its, other := running(t, c, points, task)
	task = filepath.Join(points[other.Name], "tasks", filepath.Base(task))
	said := filepath.Join(points[other.Name], "said")
	awaitText(t, said, "1\n", soon)

	roots := []int{its.PID(), runner(t, its.Data)}
	goOn := func(killersToo bool) {
		for _, pid := range append(roots, underneath(roots)...) {
			if name := read(fmt.Sprintf("/proc/%d/cmdline", pid)); !killersToo && (strings.HasPrefix(name, "dos-runner") || strings.HasPrefix(name, "dos-shim")) {
				continue
			}
			_ = syscall.Kill(pid, syscall.SIGCONT) // or it has ended
		}
	}
	t.Cleanup(func() { goOn(true) })
	session := filepath.Join(points[its.Name], "cluster", "self", "session")
	before := read(session)
	var stopped []int
	for { // until nobody is left who could start another
		all := append(slices.Clone(roots), underneath(roots)...)
		fresh := slices.DeleteFunc(all, func(pid int) bool { return slices.Contains(stopped, pid) })
		if len(fresh) == 0 {
			break
		}
		for _, pid := range fresh {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		stopped = append(stopped, fresh...)
	}
	awaitText(t, beats, "\n2 ", 2*sessionTime+2*soon)
	awaitText(t, said, "\n2\n", 2*soon)
	if again, _ := running(t, c, points, task); again == its {
		t.Fatalf("it runs on %s again, which stands still", its.Name)
	}
	wentOn := time.Now()
	goOn(false)
	awaitNewSession(t, session, before) // in which the mount would do what anybody asks for
	tried := strings.Count("\n"+read(beats), "\n1 ") + 20
	cluster.Await(t, 2*soon, func() error {
		if n := strings.Count("\n"+read(beats), "\n1 "); n < tried {
			return fmt.Errorf("the first attempt has tried %d times, of %d", n, tried)
		}
		return nil
	})
	for line := range strings.Lines(read(beats)) {
		// What it had done when it stood still it says now.
		if at, done := beat(t, line); done && at.After(wentOn) {
			t.Fatalf("the first attempt writes after the second has begun: %q", line)
		}
	}
	began := time.Now()
	goOn(true)
	cluster.Await(t, soon, func() error {
		for _, pid := range stopped {
			if !slices.Contains(roots, pid) && lives(pid) && strings.Contains(read(fmt.Sprintf("/proc/%d/environ", pid)), "DOS_ATTEMPT=1\x00") {
				return fmt.Errorf("process %d of the first attempt lives", pid)
			}
		}
		return nil
	})
	after := time.Duration(0) // the first attempt ran on
	for line := range strings.Lines(read(beats)) {
		if at, _ := beat(t, line); !at.IsZero() {
			after = max(after, at.Sub(began))
		}
	}
	t.Logf("the first attempt did something %v after its machine went on", after)
	if after > 10*time.Second { // one, if the machine is not busy
		t.Errorf("the first attempt went on for %v", after)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitField(t, task, "state", "done", soon)
	if got := field(task, "attempt"); got != "2" {
		t.Errorf("attempt %s is done, want 2", got)
	}
	for _, file := range []string{said, filepath.Join(task, "stdout")} {
		if _, rest, _ := strings.Cut(read(file), "\n2\n"); strings.Contains("\n"+rest, "\n1\n") {
			t.Errorf("in %s the first attempt writes after the second", file)
		}
	}
}

// beat is when the first attempt began to write, and whether it did; zero if a line of beats is
// not of it.
func beat(t *testing.T, line string) (at time.Time, done bool) {
	t.Helper()
	text, ok := strings.CutPrefix(line, "1 ")
	if !ok {
		return at, false
	}
	text, is, _ := strings.Cut(text, " ")
	ns, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return time.Unix(0, ns), is == "yes\n"
}

// underneath lists what processes have begun, and these, the eldest first.
func underneath(roots []int) (list []int) {
	all := parents()
	for at := slices.Clone(roots); len(at) > 0; {
		var next []int
		for pid, parent := range all {
			if slices.Contains(at, parent) {
				next = append(next, pid)
			}
		}
		list, at = append(list, next...), next
	}
	return list
}
